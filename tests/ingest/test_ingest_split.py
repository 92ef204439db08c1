"""The test split that is made: disjoint, repeatable, and blind to the order of the rows."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.ingest.images import Images
from tasks.ingest.source import Source
from tasks.ingest.split import image_groups, make_test_split, validation_as_test
from tasks.records import Case

FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**31 - 1)


def case(number: int, image: str, group: str | None = None, split: str = "train") -> Case:
    return Case(f"d:{number}", image, "q", "a", "open", split, "d", "en", group=group)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> list[Case]:
    """Cases of up to 12 images in up to 5 groups, some of them validation."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 11), st.sampled_from([None, "a", "b", "c", "d", "e"]), st.sampled_from("tttv")),
            min_size=2,
            max_size=40,
        )
    )
    splits = {"t": "train", "v": "validation"}
    found = [case(n, f"image{image}", group, splits[split]) for n, (image, group, split) in enumerate(rows)]
    return [*found, case(-1, "image-train"), case(-2, "image-other")]


@settings(deadline=None)  # the machine may be busy
@given(cases(), FRACTIONS, SEEDS)
def test_no_image_and_no_group_is_parted_and_no_side_is_empty(rows: list[Case], fraction: float, seed: int) -> None:
    made = make_test_split(rows, fraction, seed)
    tested = [row for row in made if row.split == "test"]
    others = [row for row in made if row.split != "test"]
    assert {row.image_id for row in tested}.isdisjoint(row.image_id for row in others)
    assert {row.group for row in tested if row.group}.isdisjoint(row.group for row in others)
    assert tested
    assert any(row.split == "train" for row in others)
    assert [row.id for row in made] == [row.id for row in rows]
    assert all(new == old for new, old in zip(made, rows, strict=True) if new.split != "test")


@settings(deadline=None)  # the machine may be busy
@given(cases(), FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_choice_does_not_depend_on_the_order(rows: list[Case], fraction: float, seed: int, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(rows)
    random.shuffle(shuffled)
    expected = {row.id: row.split for row in make_test_split(rows, fraction, seed)}
    assert {row.id: row.split for row in make_test_split(shuffled, fraction, seed)} == expected


@settings(deadline=None)  # the machine may be busy
@given(cases())
def test_groups_are_the_connected_parts(rows: list[Case]) -> None:
    """Against a plain repeated merge of sets of images."""
    by_group = defaultdict(set)
    for row in rows:
        by_group[row.group or f"only {row.image_id}"].add(row.image_id)
        by_group[f"only {row.image_id}"].add(row.image_id)
    parts: list[set[str]] = []
    for images in by_group.values():
        touching = [part for part in parts if part & images]
        parts = [part for part in parts if not part & images] + [images.union(*touching)]
    found = defaultdict(set)
    for image, group in image_groups(rows).items():
        found[group].add(image)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, parts))


def test_groups_keep_their_published_names() -> None:
    rows = [case(1, "i1", "url b"), case(2, "i1", "url a"), case(3, "i2", "url b"), case(4, "i3")]
    assert image_groups(rows) == {"i1": "url a", "i2": "url a", "i3": "i3"}


@pytest.mark.parametrize(("fraction", "count"), [(0.2, 20), (0.5, 50), (0.001, 1), (0.999, 99)])
def test_share_of_single_images_is_exact(fraction: float, count: int) -> None:
    rows = [case(number, f"image{number % 100}") for number in range(300)]
    made = make_test_split(rows, fraction, 0)
    assert sum(row.split == "test" for row in made) == 3 * count


def test_large_group_does_not_swamp_the_test_split() -> None:
    rows = [case(number, f"image{number}", "large" if number < 60 else None) for number in range(100)]
    for seed in range(20):
        assert sum(row.split == "test" for row in make_test_split(rows, 0.2, seed)) == 20


def test_seed_changes_the_choice() -> None:
    rows = [case(number, f"image{number}") for number in range(50)]
    assert make_test_split(rows, 0.2, 0) != make_test_split(rows, 0.2, 1)


def test_choice_is_the_same_in_every_process() -> None:
    program = (
        "from tasks.ingest.split import make_test_split; from tasks.records import Case;"
        "rows = [Case(str(n), f'image{n}', 'q', 'a', 'open', 'train', 'd', 'en') for n in range(20)];"
        "print(*[row.id for row in make_test_split(rows, 0.2, 5) if row.split == 'test'])"
    )
    rows = [case(number, f"image{number}") for number in range(20)]
    here = [row.id.removeprefix("d:") for row in make_test_split(rows, 0.2, 5) if row.split == "test"]
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == here


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [case(1, "only"), case(2, "only")],
        [case(1, "i1", "g"), case(2, "i2", "g")],
        [case(1, "i1", split="validation"), case(2, "i2", split="validation")],
    ],
)
def test_cases_that_cannot_be_parted_are_refused(rows: list[Case]) -> None:
    with pytest.raises(StudyError, match="at least 2 unrelated images"):
        make_test_split(rows, 0.2, 0)


def test_validation_serves_as_test_and_published_test_cases_are_left_out() -> None:
    splits = ["train", "validation", "test", "validation", "train"]
    published = [case(place, f"i{place}", split=split) for place, split in enumerate(splits)]
    made = validation_as_test(Source(published, Images([]), notes={"others": 2}), "d")
    expected = [("d:0", "train"), ("d:1", "test"), ("d:3", "test"), ("d:4", "train")]
    assert [(each.id, each.split) for each in made.cases] == expected
    assert made.notes == {
        "others": 2,
        "rows of the validation split that serve as test": 2,
        "rows of the published test split left out": 1,
    }


def test_without_a_validation_split_it_cannot_serve() -> None:
    with pytest.raises(StudyError, match=r"^Expected a validation split of d .*: set dataset\.test=published\.$"):
        validation_as_test(Source([case(0, "i")], Images([])), "d")
