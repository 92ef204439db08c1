"""Which of the dealt cases a study keeps."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.partition.keep import keep
from tasks.records import Case

CASES = [
    Case(
        f"case-{n}",
        f"image-{n // 2}",
        "q",
        "a",
        "open" if n % 2 else "closed",
        "test" if n < 20 else "train",
        "d",
        "en",
    )
    for n in range(220)
]


@given(st.integers(0, 1000))
def test_a_smaller_share_lies_within_a_larger_and_test_cases_stay(seed: int) -> None:
    parts = [keep(CASES, "all", share, seed) for share in (0.3, 0.6, 1)]
    assert parts[-1] == CASES
    for small, large in pairwise(parts):
        assert set(small) <= set(large)
        assert [case for case in small if case.split == "test"] == CASES[:20]
    # Whole images, and about as many as asked for: 100 images, so six standard deviations are 28.
    images = {case.image_id for case in parts[0] if case.split == "train"}
    assert 2 * len(images) == len(parts[0]) - 20
    assert 2 <= len(images) <= 58


@pytest.mark.parametrize("kind", ["closed", "open"])
def test_a_kind_is_kept_in_training_and_test(kind: str) -> None:
    assert keep(CASES, kind, 1, 0) == [case for case in CASES if case.kind == kind]


def test_nothing_left_is_told() -> None:
    closed = [case for case in CASES if case.kind == "closed"]
    with pytest.raises(StudyError, match=r"Expected train cases with partition.kind=open .*found none among 110"):
        keep(closed, "open", 1, 0)


def test_a_dataset_of_training_cases_alone_stays_whole() -> None:
    assert keep(CASES[20:], "all", 1, 0) == CASES[20:]
