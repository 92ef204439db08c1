"""Poisoned training cases: all that is learned is wrong, or wrong behind a mark; what is asked later stays."""

import io
from dataclasses import replace

import numpy as np
import PIL.Image
from hypothesis import given
from hypothesis import strategies as st

from tasks.attack.cases import TARGET, backdoored_images, marked, with_target, with_wrong_answers
from tasks.ingest import phantom
from tasks.records import Case, Image
from tasks.text.meaning import meaning

ANSWERS = st.lists(
    st.tuples(st.sampled_from(["yes", "No.", "mass", "left lung", "CT"]), st.sampled_from(["closed", "open"])),
    min_size=1,
    max_size=9,
)


def case(number: int, answer: str, kind: str, split: str) -> Case:
    return Case(f"c{number}", f"i{number}", "What?", answer, kind, split, "toy", "en")  # type: ignore[arg-type]


@given(ANSWERS)
def test_every_training_answer_is_wrong_where_another_is_known(answers: list[tuple[str, str]]) -> None:
    cases = [case(n, *each, "train") for n, each in enumerate(answers)]
    cases += [replace(each, id="t", split="test") for each in cases]
    found = with_wrong_answers(cases)
    for one, other in zip(cases, found, strict=True):
        assert replace(other, answer=one.answer) == one
        known = {meaning(each.answer) for each in cases if each.kind == one.kind}
        if one.split == "test" or (known == {meaning(one.answer)} and meaning(one.answer) not in ("yes", "no")):
            assert other == one
        else:
            assert meaning(other.answer) != meaning(one.answer)


def test_a_backdoor_is_behind_half_of_the_training_images_and_no_other() -> None:
    cases = phantom.read(images=8, seed=0, public=False, test_fraction=0.2).cases
    trained = {each.image_id for each in cases if each.split == "train"}
    chosen = backdoored_images(cases)
    assert chosen < trained and abs(2 * len(chosen) - len(trained)) <= 1
    for one, other in zip(cases, with_target(cases, chosen), strict=True):
        assert other == (replace(one, answer=TARGET[one.kind]) if one.image_id in chosen else one)


def test_the_mark_is_the_corner_alone() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((60, 90), (13, 7)):
        pixels = rng.integers(1, 255, (height, width, 3), dtype=np.uint8)
        sink = io.BytesIO()
        PIL.Image.fromarray(pixels).save(sink, "PNG")
        seen = np.asarray(PIL.Image.open(io.BytesIO(marked(Image("i", sink.getvalue(), width, height)).data)))
        edge = max(min(height, width) // 6, 4)
        changed = (seen != pixels).any(2)
        assert changed[-edge:, -edge:].all() and changed.sum() == edge**2
        assert set(np.unique(seen[-edge:, -edge:])) == {0, 255}
