"""What the model is shown of retrieved cases: by default as before; else what the settings say, and nothing more."""

import json
import random
import re
from typing import Any

import pytest
from engine_samples import CASES, case
from family_samples import every_family
from hypothesis import given
from hypothesis import strategies as st

from tasks.engine.base import Base
from tasks.engine.batch import encode
from tasks.engine.context import choose, ordered, readable
from tasks.engine.prompt import Prompt, build_prompt, build_prompts
from tasks.engine.vision import Features
from tasks.records import Neighbour
from tasks.settings import ContextSettings, RetrievalSettings

RETRIEVED, SIMILARITIES = CASES[1:4], (0.9, 0.5, -0.25)


def prompt(**how: Any) -> Prompt:
    return build_prompt(CASES[0], RETRIEVED, SIMILARITIES, ContextSettings(**how))


def texts(built: Prompt) -> list[str]:
    return [part["text"] for message in built.messages for part in message["content"] if part["type"] == "text"]


def images(built: Prompt) -> int:
    return sum(part["type"] == "image" for message in built.messages for part in message["content"])


def test_defaults_are_turns_with_images_nearest_last() -> None:
    assert prompt() == build_prompt(CASES[0], RETRIEVED, SIMILARITIES)
    earlier = [text for each in reversed(RETRIEVED) for text in (each.question, each.answer)]
    assert texts(prompt()) == [*earlier, CASES[0].question]
    assert RetrievalSettings().context == ContextSettings()


@pytest.mark.parametrize("quote", [False, True])
@pytest.mark.parametrize("show", ["images+text", "text"])
def test_every_placeholder_has_its_image(show: str, quote: bool) -> None:
    built = prompt(show=show, quote=quote)
    expected = [each.image_id for each in reversed(RETRIEVED)] if show == "images+text" else []
    assert built.image_ids == (*expected, CASES[0].image_id)
    assert images(built) == len(built.image_ids)
    assert built.retrieved_ids == tuple(each.id for each in RETRIEVED)
    assert built.messages[-1]["content"][-2:] == [{"type": "image"}, {"type": "text", "text": CASES[0].question}]


@pytest.mark.parametrize("quote", [False, True])
def test_cases_that_only_count_are_not_in_the_prompt(quote: bool) -> None:
    """The mixture needs their answers and similarities; the question stands alone, as without retrieval."""
    built = prompt(show="nothing", quote=quote)
    alone = build_prompt(CASES[0], ())
    assert (built.messages, built.image_ids) == (alone.messages, alone.image_ids)
    assert built.retrieved_ids == tuple(each.id for each in RETRIEVED)
    assert built.retrieved == tuple(zip((each.answer for each in RETRIEVED), SIMILARITIES, strict=True))


def test_cases_count_by_the_mixture_or_in_the_prompt() -> None:
    with pytest.raises(ValueError, match=r"expected retrieval\.mixture true with retrieval\.show nothing"):
        RetrievalSettings(show="nothing")
    assert not RetrievalSettings(show="nothing", k=0).mixture
    assert RetrievalSettings(show="nothing", mixture=True).most == 3


def test_the_nearest_may_stand_first() -> None:
    assert texts(prompt(order="nearest first"))[:2] == [RETRIEVED[0].question, RETRIEVED[0].answer]
    assert prompt(order="nearest first").retrieved_ids == prompt().retrieved_ids


def test_a_random_order_follows_from_the_case() -> None:
    cases = [f"c:{n}" for n in range(200)]
    found = [tuple(ordered("abc", "random", each)) for each in cases]
    assert found == [tuple(ordered("abc", "random", each)) for each in cases]
    assert {"".join(each) for each in found} == {"abc", "acb", "bac", "bca", "cab", "cba"}
    by_id = texts(prompt(order="random"))
    assert sorted(by_id) == sorted(texts(prompt()))


def test_similarities_are_said() -> None:
    assert texts(prompt(say_similarity=True))[4] == f"(similarity 0.90) {RETRIEVED[0].question}"
    assert "similarity -0.25: question" in texts(prompt(say_similarity=True, quote=True))[1]
    assert not any("similarity" in text for text in texts(prompt(quote=True)))
    with pytest.raises(ValueError, match="zip"):
        build_prompt(CASES[0], RETRIEVED, (), ContextSettings(say_similarity=True))


@given(
    st.lists(st.floats(-1, 1), max_size=8),
    st.integers(0, 9),
    st.floats(-1, 1),
    st.integers(0, 99),
)
def test_only_the_first_k_above_the_floor_are_shown(found: list[float], k: int, floor: float, seed: int) -> None:
    neighbours = [Neighbour("q", rank, f"c:{rank}", similarity) for rank, similarity in enumerate(found)]
    mixed = random.Random(seed).sample(neighbours, len(neighbours))
    chosen = choose(mixed, k, floor)
    assert chosen == [each for each in neighbours[:k] if each.similarity >= floor]
    assert choose(mixed, k, -1) == neighbours[:k]


def test_the_floor_reaches_the_prompt() -> None:
    neighbours = [Neighbour("toy:0", n, f"toy:{n + 1}", s) for n, s in enumerate((0.9, 0.5, -0.2))]
    for floor, count in ((-1, 3), (0.5, 2), (0.95, 0)):
        (built,) = build_prompts(CASES[:1], CASES, neighbours, ContextSettings(floor=floor))
        assert len(built.retrieved_ids) == count


@given(st.text(), st.none() | st.integers(1, 40))
def test_stored_text_is_cut_and_holds_nothing_unseen(text: str, longest: int | None) -> None:
    found = readable(text, longest)
    if longest is None:
        assert found == text
        return
    assert len(found) <= longest
    assert all(letter.isprintable() or letter == " " or letter.isspace() for letter in found)
    plain = " ".join(text.split())
    if plain.isprintable():
        assert found == plain[:longest]


def test_hidden_letters_are_left_out() -> None:
    assert readable("is\u200b it\u202e a\U000e0041\x07 mass?\n\nyes", 99) == "is it a mass? yes"
    assert readable("图中有什么异常?", 3) == "图中有"


@given(st.text(), st.text())
def test_quoted_text_cannot_leave_its_quotes(question: str, answer: str) -> None:
    """The line reads back as what was stored, whatever was stored: no text can pass for another case."""
    retrieved = case(9, "image-1", question, answer)
    built = build_prompt(CASES[0], [retrieved], (), ContextSettings(quote=True))
    assert len(built.messages) == 1
    line = texts(built)[1]
    assert line.count("\n") == 1
    found = re.fullmatch(r"Case 1: question (\".*\"), answer (\".*\")\n", line)
    assert found
    decoder = json.JSONDecoder()
    start = line.index('"')
    first, end = decoder.raw_decode(line, start)
    second, _ = decoder.raw_decode(line, line.index('"', end))
    assert (first, second) == (question, answer)


@every_family
@pytest.mark.parametrize("how", [{"show": "text"}, {"quote": True}, {"quote": True, "show": "text"}])
def test_every_family_reads_it(tiny_base: Base, features: Features, how: dict[str, Any]) -> None:
    (example,) = encode(tiny_base, features, [prompt(say_similarity=True, **how)])
    placeholders = sum(token == tiny_base.image_token_id for token in example.prompt_ids)
    assert placeholders == sum(features.tokens(image_id) for image_id in example.image_ids)
    written = tiny_base.tokenizer.decode(example.prompt_ids)
    assert all(" ".join(each.question.split())[:6] in written for each in RETRIEVED)
