"""Pages: whole in one file, without anything of a patient where others look, and quiet in a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from tasks.records import Case, Image, Prediction, Saliency, write_table
from tasks.report.intervals import details
from tasks.report.page.loss_plots import loss_plot
from tasks.report.page.maps import OPACITY, maps_of
from tasks.report.page.pictures import LONGEST, Picture, pictures
from tasks.report.page.plots import partition_plot, score_plot
from tasks.report.page.render import Answered, DataStatements, hospital_page, model_card, study_page
from tasks.report.privacy import privacy_sentence
from tasks.report.results import About, Measured, assemble, hospital_rows, score_rows
from tasks.score.score import score_row, summarise
from tasks.settings import Study

DATA = DataStatements("as the data gives it", "no row was left out", 6, "No negative control.")
NASTY = '<script>alert("x")</script> & "quoted"'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def png(width: int, height: int) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Pillow.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """A document of two hospitals and two rounds, made of judged answers."""
    rows = [score_row("yes", "yes", "closed"), score_row("no", "yes", "closed"), score_row("cyst", "cyst", "open")]
    tallies = {name: summarise(rows).to_json() for name in ("fed+rag", "base", "majority")}
    nothing = {"questions": [], "labels": False, "groups": {}, "by_kind": {}}
    shared = [{"hospital": f"hospital-{number}", "tallies": tallies, "withheld": nothing} for number in (1, 2)]
    rounds = [{"round": number, "train_loss": 1 / number, "eval_loss": None, "quarantined": {}} for number in (1, 2)]
    holds = {"images": 2, "test_closed": 2, "test_open": 1, "train_closed": 5, "train_open": 4}
    about = About(
        run="20260101-000000-00000001",
        trained=(),
        model={"name": "embedded", "revision": None, "content": "0a1b2c"},
        settings=Study().model_dump(mode="json"),
        dataset={"dataset": {"phantom": 24}, "images": 4, "rejected": 0},
        partition={"scheme": "site", "hospitals": [{"hospital": each["hospital"], **holds} for each in shared]},
        split={
            "disjoint": "none",
            "moved_cases": 0,
            "test": 6,
            "train": 18,
            "published_split_shares": {"same_image": 3, "same_patient": None},
        },
        timings_s={"ingest": 1.25},
        peak_memory_bytes=2_000_000_000,
    )
    return assemble(shared, rounds, Measured(details([], 0)), about)


def tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """The score tables, as a page takes them."""
    return {"": score_rows(results), "fed+rag": hospital_rows(results, "fed+rag")}


@pytest.fixture(scope="module")
def page(results: dict[str, Any]) -> str:
    """The study's page."""
    return study_page(results, tables(results), DATA)


def test_what_noise_hides_is_said_as_it_is(results: dict[str, Any]) -> None:
    """Not that there was none, where there was."""
    told = replace(DATA, privacy="epsilon 7.31 hides one training case")
    text = study_page(results, tables(results), told)
    assert "epsilon 7.31 hides one training case" in text and "No differential privacy" not in text
    assert "No differential privacy" in study_page(
        results, tables(results), replace(DATA, privacy=privacy_sentence(None))
    )


def test_few_moved_cases_are_not_counted(results: dict[str, Any], page: str) -> None:
    assert "0 cases moved since" in page
    split = results["split"] | {"moved_cases": "withheld"}
    text = study_page({**results, "split": split}, tables(results), DATA)
    assert "how many cases were moved since is withheld" in text


def test_the_card_names_the_rules_of_the_rounds(results: dict[str, Any]) -> None:
    def card(**changes: str) -> str:
        federation = results["settings"]["federation"] | changes
        settings = results["settings"] | {"federation": federation}
        return model_card({**results, "settings": settings}, tables(results), DATA)

    assert "- Strategy `fedavg`, LoRA's factors averaged by the rule `factors`" in card()
    assert "- Strategy `krum`, LoRA's factors averaged by the rule `freeze-a`" in card(
        strategy="krum", lora_mean="freeze-a"
    )
    assert "- Strategy `none` (docs/federation.md)." in card(strategy="none")


def saliency(method: str, rank: int | None, weights: tuple[float, ...]) -> Saliency:
    """A map of one row over the right half of an image of 8 x 8 pixels."""
    return Saliency("t:1", method, None, None, None, "seen", rank, 1, len(weights), weights, (4, 0, 8, 8))


MAPS = [
    saliency("relevance", 0, (0.1, 0.0)),
    saliency("relevance", None, (0.2, 0.4)),
    saliency("occlusion", None, (-1.0, 0.0)),
]


FAILURES = ("copies_neighbour", "ignores_image")


def answered(
    identity: str, image: str, *, correct: bool, context: tuple[Case, ...] = (), explained: bool = False
) -> Answered:
    """An answer to a question with characters that HTML gives a meaning."""
    case = Case(identity, image, NASTY, "yes", "closed", "test", "table", "en", modality="ct")
    ids = tuple(each.id for each in context)
    prediction = Prediction("fed+rag", identity, "hospital-1", "closed", NASTY, "yes", NASTY, ids)
    if not explained:
        return Answered(prediction, correct, case, context)
    shares = [("of 1 answers", "question"), ("relevance", "0.123")]
    return Answered(prediction, correct, case, context, tuple(maps_of(MAPS)), shares, FAILURES)


@pytest.fixture(scope="module")
def gallery() -> str:
    """A hospital's page with a right and a wrong answer, and an image that is shown three times."""
    retrieved = Case("t:9", "seen", "Is it?", "no", "closed", "train", "table", "en")
    answers = [
        answered("t:1", "seen", correct=True, context=(retrieved,), explained=True),
        answered("t:2", "other", correct=False, context=(retrieved,)),
    ]
    images = {
        "seen": Picture("image-0", 4, 4, "data:image/jpeg;base64,AAAA", 0.5),
        "other": Picture("image-1", 4, 4, "data:,"),
    }
    return hospital_page("run-1", "hospital-1", answers, 5, images)


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep one element."""
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", ["page", "gallery"])
def test_a_page_asks_for_nothing_outside_itself(name: str, request: pytest.FixtureRequest) -> None:
    for _, attributes in Elements(request.getfixturevalue(name)).found:
        for attribute in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("#", "data:")), value


@pytest.mark.parametrize("name", ["page", "gallery"])
def test_a_screen_reader_is_told_of_every_picture_and_the_language(name: str, request: pytest.FixtureRequest) -> None:
    elements = Elements(request.getfixturevalue(name)).found
    assert ("html", {"lang": "en"}) in elements
    pictured = [attributes for tag, attributes in elements if tag == "svg" and attributes.get("class") != "sheet"]
    assert pictured
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictured)
    identities = [attributes["id"] for _, attributes in elements if attributes.get("id")]
    assert len(identities) == len(set(identities))


def test_the_page_shows_every_score_of_the_document(results: dict[str, Any], page: str) -> None:
    for row in [*score_rows(results), *hospital_rows(results, "fed+rag")]:
        for cell in row:
            assert f">{cell}<" in page
    assert ">same image<" in page
    match = re.search(r">same patient<.*?</tr>", page, re.DOTALL)
    assert match and "not stated" in match[0] and "None" not in match[0]
    assert ">0.500<" in page  # 3 of 6 test cases


def test_texts_are_never_markup(gallery: str) -> None:
    assert "<script>alert" not in gallery
    assert gallery.count("&lt;script&gt;alert") == 2 * 2 + 1  # question and answer of each, and a table's name


def test_an_image_is_held_once_however_often_it_is_shown(gallery: str) -> None:
    assert gallery.count("base64,AAAA") == 1
    assert gallery.count('href="#image-0"') == 3
    assert "2 of 5 answers" in gallery


def test_answers_can_be_told_apart_by_the_filters(gallery: str) -> None:
    articles = [attributes for tag, attributes in Elements(gallery).found if tag == "article"]
    assert [each["data-verdict"] for each in articles] == ["right", "wrong"]
    assert {each["data-modality"] for each in articles} == {"ct"}
    assert [each["data-explained"] for each in articles] == ["yes", "no"]
    assert [each["data-failures"] for each in articles] == ["copies_neighbour|ignores_image", ""]
    assert "failure modes: copies neighbour, ignores image<" in gallery
    assert 'value="ignores_image">ignores image</option>' in gallery


def test_maps_lie_over_their_images_in_one_scale(gallery: str) -> None:
    images = [(tag, each) for tag, each in Elements(gallery).found if tag == "use" or "map" in each.get("class", "")]
    assert [tag for tag, _ in images] == ["use", "image", "image", "use", "image", "use", "use"]  # its own image first
    found = [attributes for tag, attributes in images if tag == "image"]
    assert [each["class"] for each in found] == ["map relevance", "map occlusion", "map relevance"]
    place = [{name: float(each[name]) for name in ("x", "y", "width", "height")} for each in found]
    assert place == 3 * [{"x": 2, "y": 0, "width": 2, "height": 4}]  # the page's picture is half as large
    opacity = []
    for each in found:
        data = base64.b64decode(each["href"].removeprefix("data:image/png;base64,"))
        opacity.append(np.asarray(Pillow.open(io.BytesIO(data)))[0, :, 3] / 255)
    half, whole = OPACITY / 2, OPACITY
    np.testing.assert_allclose(opacity, [(half, whole), (0, 0), (half / 2, 0)], atol=1 / 255)
    assert ">0.123<" in gallery


def test_pictures_are_small_and_only_those_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "images.parquet").open("wb") as sink:
        sizes = {"wide": (600, 300), "small": (10, 20), "unasked": (5, 5)}
        write_table(sink, Image, [Image(name, png(*size), *size) for name, size in sizes.items()])
    found = pictures(tmp_path / "images.parquet", ["wide", "small", "absent"])
    assert {name: (each.width, each.height) for name, each in found.items()} == {
        "wide": (LONGEST, LONGEST // 2),
        "small": (10, 20),
    }
    assert (found["wide"].scale, found["small"].scale) == (pytest.approx(LONGEST / 600), 1)
    assert len({each.element for each in found.values()}) == 2


def test_plots_say_in_words_what_they_draw(results: dict[str, Any]) -> None:
    assert "from 1.000 to 0.500" in loss_plot(results["rounds"])
    assert "fed+rag closed 0.500, open 1.000" in score_plot(results)
    assert "hospital-1 12" in partition_plot(results["partition"]["hospitals"])


def test_a_plot_of_the_same_figures_is_the_same(results: dict[str, Any]) -> None:
    assert score_plot(results) == score_plot(results)


def test_the_card_follows_from_the_document(results: dict[str, Any]) -> None:
    card = model_card(results, tables(results), DATA)
    assert "LoRA, r=16, alpha=32, on q_proj, v_proj" in card
    assert "Base: `embedded`, content `0a1b2c`, frozen" in card
    assert "same image: 3 of 6" in card and "same patient: not stated" in card
    assert "| hospital-2 | 2 | 9 | 3 |" in card
    for line in re.findall(r"^\|.*\|$", card, flags=re.MULTILINE):
        assert line.count("|") in (5, 10)  # the tables' own columns


def test_the_card_names_all_that_is_trained(results: dict[str, Any]) -> None:
    """The tower's layers only where they are trained; a run of an earlier version does not have the setting."""
    lora = results["settings"]["lora"]

    def trained(**settings: Any) -> str:
        document = results | {"settings": results["settings"] | {"lora": settings}}
        return re.findall(r"LoRA, .*", model_card(document, tables(document), DATA))[0]

    earlier = {name: value for name, value in lora.items() if name != "tower_targets"}
    assert trained(**earlier) == trained(**earlier, tower_targets=[]) == "LoRA, r=16, alpha=32, on q_proj, v_proj."
    both = trained(**earlier | {"projector": True}, tower_targets=["qkv", "proj"])
    assert both == (
        "LoRA, r=16, alpha=32, on q_proj, v_proj, on the vision tower's qkv, proj, and the whole projector."
    )


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page."""

    document: str
    messages: str
    requests: list[str]
    """Addresses that the page itself asked for; those of the browser's own housekeeping have no origin."""


def visit(page: str, folder: Path) -> Visit:
    """Open a page in headless Chromium."""
    assert CHROMIUM is not None
    file, log = folder / "page.html", folder / "net.json"
    file.write_text(page, encoding="utf-8")
    quiet = ["no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync"]
    options = [*quiet, "disable-component-update", f"user-data-dir={folder / 'profile'}", f"log-net-log={log}"]
    command = [CHROMIUM, "--headless", *(f"--{each}" for each in options), "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    events = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    requests = [each["url"] for each in events if each.get("initiator", "not an origin") != "not an origin"]
    return Visit(done.stdout, done.stderr, requests)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("name", "expected"), [("page", "majority"), ("gallery", "2 shown")]
)  # the second by its script
def test_a_browser_finds_no_error_and_asks_the_network_for_nothing(
    name: str, expected: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    visited = visit(request.getfixturevalue(name), tmp_path)
    assert "CONSOLE" not in visited.messages, visited.messages
    assert not visited.requests
    assert expected in visited.document


FILTERED = [
    ({"failures": "ignores_image"}, "1 shown", "relevance"),
    ({"explained": "no", "map": "occlusion"}, "1 shown", "occlusion"),
]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("chosen", "expected", "drawn"), FILTERED)
def test_filters_and_maps_are_chosen_in_a_browser(
    chosen: dict[str, str], expected: str, drawn: str, gallery: str, tmp_path: Path
) -> None:
    choose = "".join(f"form.elements['{name}'].value = '{value}';" for name, value in chosen.items())
    visited = visit(gallery.replace("show();\n</script>", f"{choose}show();\n</script>"), tmp_path)
    assert expected in visited.document
    assert f'data-map="{drawn}"' in visited.document


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_page_that_asked_or_erred_would_be_noticed(tmp_path: Path) -> None:
    visited = visit('<img src="http://pictures.invalid/a.png"><script>missing()</script>', tmp_path)
    assert "missing is not defined" in visited.messages
    assert any("pictures.invalid" in address for address in visited.requests)
