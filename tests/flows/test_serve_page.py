"""The page in a browser: a dropped image, a question, the cases and the map, by keyboard alone."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from browser import CHROMIUM, Tab, opened
from serving import TOKEN, Parrot, served

from flows.serve.app import make_app
from flows.serve.asked import ChangedError
from flows.serve.front import Limits
from flows.serve.metrics import Metrics
from flows.serve.tokens import OneToken

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def png(width: int, height: int) -> bytes:
    ramp = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    drawn = io.BytesIO()
    PIL.Image.fromarray(ramp).save(drawn, format="PNG")
    return drawn.getvalue()


class Painter(Parrot):
    """Explains with a picture."""

    def explain(self, who: str, answer: str, method: str) -> bytes:
        """A picture as wide as the method's name is long."""
        if answer not in {each.picture.id for each in self.asked if each.who == who}:
            raise ChangedError
        return png(100 * len(method), 200)


def focused(tab: Tab) -> str:
    """The id of what has the focus."""
    return tab.value("document.activeElement.id")


def to(tab: Tab, name: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(20):
        if focused(tab) == name:
            return
        tab.press("Tab")
    raise AssertionError(f"The keyboard never came to {name}.")


def test_an_image_is_dropped_and_asked_about_by_keyboard(tmp_path: Path) -> None:
    parrot, image = Painter(), tmp_path / "image.png"
    image.write_bytes(png(300, 200))
    with (
        served(make_app(parrot, OneToken(TOKEN), Limits(wait_ms=0), Metrics())) as client,
        opened(f"{client.base_url}/", tmp_path) as tab,
    ):
        assert "not a medical device" in tab.value("document.querySelector('[role=note]').innerText").lower()
        assert tab.value("document.querySelector('[role=note]').getBoundingClientRect().bottom < innerHeight")
        tab.drop(image, "#drop")
        tab.wait("document.getElementById('chosen').naturalWidth == 300")
        to(tab, "token")
        tab.type("wrong")
        to(tab, "question")
        tab.type("Is there a mass?")
        tab.press("Enter")
        tab.wait("document.getElementById('status').innerText.includes('valid token')")
        assert tab.value("document.getElementById('result').hidden")
        tab.value("document.getElementById('token').value = ''")
        tab.value("document.body.focus(); document.activeElement.blur()")
        to(tab, "token")
        tab.type(TOKEN)
        to(tab, "ask")
        tab.press("Enter")
        tab.wait("!document.getElementById('result').hidden && !document.getElementById('ask').disabled")
        assert focused(tab) == "heading"  # where a screen reader goes on
        assert tab.value("document.getElementById('answer').innerText") == "Is there a mass?"
        assert parrot.asked[-1].picture.data == image.read_bytes()
        shown = tab.value("document.getElementById('cases').innerText")
        assert "Is there a cyst?" in shown and "0.750" in shown
        tab.wait("document.querySelector('#cases img').naturalWidth > 0")
        to(tab, "method")
        tab.press("ArrowDown")
        assert tab.value("document.getElementById('method').value") == "attention"
        to(tab, "explain")
        tab.press(" ")
        tab.wait("document.getElementById('map').naturalWidth == 900")
        assert "attention" in tab.value("document.getElementById('map').alt")
        tab.picture(tmp_path / "page.png")
        assert not [each for each in tab.messages if "exception" in each.lower()], tab.messages


def test_words_appear_while_the_answer_is_made(tmp_path: Path) -> None:
    parrot, image = Painter(), tmp_path / "image.png"
    image.write_bytes(png(30, 20))
    parrot.after_word.clear()
    with (
        served(make_app(parrot, OneToken(TOKEN), Limits(wait_ms=0), Metrics())) as client,
        opened(f"{client.base_url}/", tmp_path) as tab,
    ):
        tab.drop(image, "#drop")
        tab.value(f"document.getElementById('token').value = '{TOKEN}'")
        to(tab, "question")
        tab.type("Is there a mass?")
        tab.press("Enter")
        tab.wait("document.getElementById('answer').innerText == 'Is'")
        assert tab.value("document.getElementById('ask').disabled")
        parrot.after_word.set()
        tab.wait("document.getElementById('answer').innerText == 'Is there a mass?'")
        tab.wait("document.getElementById('cases').children.length == 1")
