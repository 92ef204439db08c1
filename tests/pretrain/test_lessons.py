"""Which cases a lesson asks."""

from collections.abc import Sequence

import pytest

from tasks.ingest import phantom
from tasks.pretrain.lessons import choose
from tasks.records import Case
from tasks.settings import Lesson


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return phantom.read(images=60, seed=3, public=True, test_fraction=0.2).cases


def chosen(cases: Sequence[Case], **lesson: object) -> list[Case]:
    return choose(cases, Lesson(title="any", **lesson), seed=0)  # type: ignore[arg-type]


def test_a_plain_lesson_asks_everything(cases: list[Case]) -> None:
    assert chosen(cases) == cases


def test_a_lesson_of_one_kind(cases: list[Case]) -> None:
    assert chosen(cases, kind="open") == [case for case in cases if case.answer not in ("yes", "no")]


def test_a_lesson_that_names_words_holds_whole_words_only(cases: list[Case]) -> None:
    questions = {case.question for case in chosen(cases, kind="closed", naming=("left", "x-ray"))}
    assert any("left" in question for question in questions)
    assert any("x-ray" in question for question in questions)
    assert all("left" in question or "x-ray" in question for question in questions)
    assert not chosen(cases, naming=("ray",))


def test_others_are_a_share_of_the_questions_without_the_words(cases: list[Case]) -> None:
    named, some, most = (chosen(cases, naming=("left",), others=others) for others in (0, 0.3, 0.6))
    assert {case.id for case in named} < {case.id for case in some} < {case.id for case in most}
    others = len(cases) - len(named)
    assert 0.2 * others < len(some) - len(named) < 0.4 * others
    assert chosen(cases, naming=("left",), others=1) == cases


def test_a_share_takes_whole_images_and_grows_with_itself(cases: list[Case]) -> None:
    half, most = ({case.image_id for case in chosen(cases, share=share)} for share in (0.5, 0.8))
    assert half < most < {case.image_id for case in cases}
    assert [case for case in cases if case.image_id in half] == chosen(cases, share=0.5)
    assert 0.3 < len(half) / 60 < 0.7


def test_the_public_part_asks_comparisons_both_ways(cases: list[Case]) -> None:
    for topic in ("side", "size", "modality"):
        answers = [case.answer for case in cases if case.topic == topic and case.kind == "closed"]
        assert answers.count("yes") == answers.count("no") > 0
