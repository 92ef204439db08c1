"""Splits that share nothing: no group parted, nothing lost, the published split wherever it can stay."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.partition.disjoint import disjoint
from tasks.records import Case, ImagePair


def case(number: int, image: str, split: str, group: str | None = None) -> Case:
    fields: dict[str, Any] = {"answer": "yes", "kind": "closed", "dataset": "d", "language": "en"}
    return Case(f"d:{number}", image, "really?", split=split, group=group, **fields)  # type: ignore[arg-type]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(["train", "validation", "test"]), st.sampled_from([None, None, "p", "q"])
    ),
    max_size=40,
)
PAIRS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["identical_pixels", "near_duplicate", "flipped"])),
    max_size=4,
)


@given(ROWS, PAIRS, st.sampled_from(["image", "near_duplicate", "patient"]), st.integers(0, 3))
def test_no_group_is_parted_and_nothing_is_lost(rows: Any, links: Any, mode: str, seed: int) -> None:
    cases = [case(number, f"i{image}", split, group) for number, (image, split, group) in enumerate(rows)]
    # So that both sides have what they need.
    cases += [case(100, "free", "train"), case(101, "alone", "test", "r")]
    pairs = [ImagePair(f"i{one}", f"i{other}", relation, 1.0) for one, other, relation in links if one != other]
    moved = disjoint(cases, pairs, mode, seed)
    assert [each.id for each in moved] == [each.id for each in cases]
    assert disjoint(cases, pairs, mode, seed) == moved
    side = {each.id: each.split == "test" for each in moved}
    for one in cases:
        for other in cases:
            tied = one.image_id == other.image_id
            for pair in pairs:
                if {pair.image_a, pair.image_b} == {one.image_id, other.image_id}:
                    tied |= mode != "image" or pair.relation == "identical_pixels"
            tied |= mode == "patient" and one.group is not None and one.group == other.group
            assert not tied or side[one.id] == side[other.id]
    tested = sum(side.values())
    assert 1 <= tested <= sum(each.split == "test" for each in cases)
    trained = defaultdict(set)
    for each in moved:
        trained[each.image_id].add(each.split)
    assert all(len(splits) == 1 for splits in trained.values())


def test_a_split_that_shares_nothing_stays() -> None:
    cases = [case(n, f"i{n}", ["train", "validation", "test"][n % 3], f"p{n}") for n in range(9)]
    for mode in ("none", "image", "near_duplicate", "patient"):
        assert [each.split for each in disjoint(cases, [], mode, 0)] == [each.split for each in cases]
    assert disjoint(cases, [], "none", 0) == cases


def test_a_near_duplicate_is_another_image_and_identical_pixels_are_not() -> None:
    cases = [case(n, f"i{n}", "test" if n == 0 else "train") for n in range(4)]
    near, same = (ImagePair("i0", "i1", relation, 1.0) for relation in ("near_duplicate", "identical_pixels"))
    for pair, mode, moves in ((near, "image", False), (near, "near_duplicate", True), (same, "image", True)):
        moved = disjoint(cases, [pair], mode, 0)
        assert (moved[0].split == moved[1].split) == moves


def test_images_that_are_all_shared_are_dealt_anew_at_the_published_share() -> None:
    cases = [case(n, f"i{n % 50}", "test" if n < 100 else "train") for n in range(500)]
    moved = disjoint(cases, [], "image", 0)
    assert Counter(each.split for each in moved) == {"train": 400, "test": 100}
    tested = {each.image_id for each in moved if each.split == "test"}
    assert len(tested) == 10
    assert tested != {each.image_id for each in disjoint(cases, [], "image", 1) if each.split == "test"}


def test_copies_share_a_group_for_hospitals_too() -> None:
    cases = [case(1, "a", "train"), case(2, "b", "train"), case(3, "c", "test")]
    moved = disjoint(cases, [ImagePair("a", "b", "flipped", 0.9)], "near_duplicate", 0)
    assert moved[0].group == moved[1].group != moved[2].group


def test_slices_of_a_scan_stay_together_through_a_chain_of_neighbours() -> None:
    """Each slice is a near-duplicate of the next alone; the first is trained on, the last is a test image."""
    slices = [case(n, f"slice-{n}", "train" if n < 4 else "test") for n in range(6)]
    others = [case(10 + n, f"other-{n}", ["train", "test"][n % 2]) for n in range(8)]
    chain = [ImagePair(f"slice-{n}", f"slice-{n + 1}", "near_duplicate", 0.9) for n in range(5)]
    for links in (chain, chain[::-1], chain[1::2] + chain[::2]):
        moved = disjoint([*slices, *others], links, "near_duplicate", 0)
        assert {each.split for each in moved[:6]} in ({"train"}, {"test"})
        assert len({each.group for each in moved[:6]}) == 1
    broken = [pair for pair in chain if pair.image_a != "slice-3"]
    assert [each.split for each in disjoint([*slices, *others], broken, "near_duplicate", 0)[:6]] == [
        each.split for each in slices
    ]


def test_where_no_group_fits_the_smallest_is_tested() -> None:
    """Three published test cases, each on an image of more; of two that are as small, the first by name."""
    rows = [(image, n) for image, size in {"z": 4, "a": 5, "m": 4}.items() for n in range(size)]
    cases = [case(place, image, "train" if n else "test") for place, (image, n) in enumerate(rows)]
    for seed in range(5):
        moved = disjoint(cases, [], "image", seed)
        assert {each.image_id for each in moved if each.split == "test"} == {"m"}


def test_one_group_alone_cannot_be_split() -> None:
    cases = [case(1, "a", "train"), case(2, "a", "test")]
    with pytest.raises(StudyError, match=r"partition\.disjoint=image"):
        disjoint(cases, [], "image", 0)


def test_patients_that_are_not_stated_keep_nothing_apart() -> None:
    cases = [case(n, f"i{n}", ["train", "test"][n % 2]) for n in range(4)]
    with pytest.raises(StudyError, match=r"patient for partition\.disjoint=patient, found none"):
        disjoint(cases, [], "patient", 0)
