"""Gives a dataset a test split: one made of its images, or its validation split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from tasks.cases.groups import image_groups
from tasks.errors import StudyError
from tasks.ingest.source import Source
from tasks.records import Caption, Case
from tasks.store import derived_seed

Record = TypeVar("Record", Case, Caption)


def validation_as_test(source: Source, name: str) -> Source:
    """The dataset with its validation split as the test split, without published test cases.

    Raises StudyError, naming the dataset, if it has no validation split.
    """
    if not any(record.split == "validation" for record in source.records):
        raise StudyError(
            f"Expected a validation split of {name} for dataset.test=validation, found none: "
            "set dataset.test=published."
        )
    made = replace(source, cases=_validation_tested(source.cases), captions=_validation_tested(source.captions))
    tested = sum(record.split == "test" for record in made.records)
    notes = {"rows of the validation split that serve as test": tested}
    lost = len(source.records) - len(made.records)
    notes |= {"rows of the published test split left out": lost} if lost else {}
    return replace(made, notes=source.notes | notes)


def _validation_tested(records: Sequence[Record]) -> list[Record]:
    kept = [each for each in records if each.split != "test"]
    return [replace(each, split="test") if each.split == "validation" else each for each in kept]


def make_test_split(cases: Sequence[Record], fraction: float, seed: int) -> list[Record]:
    """Move the cases (or captions) of some images into the test split; the order stays.

    Groups are ranked by a digest of seed and name, so the choice does not depend on the process or the order of the
    rows. They are taken in that order while they fit into the wanted share. All images of a group, and all cases of an
    image, stay together.

    Args:
        cases: of the published splits; cases of any split may become test cases.
        fraction: wanted share of the images, between 0 and 1; at most that many are taken, but at least one group.
        seed: of the choice.

    Raises StudyError where the cases form fewer than two groups, or none could stay in training.
    """
    groups = image_groups(cases)
    images: dict[str, list[str]] = defaultdict(list)
    for image, group in groups.items():
        images[group].append(image)
    ranked = sorted(images, key=lambda group: (derived_seed("test split", seed, group), group))
    trained = {groups[case.image_id] for case in cases if case.split == "train"}
    kept = next((group for group in reversed(ranked) if group in trained), None)
    free = [group for group in ranked if group != kept]
    if kept is None or not free:
        raise StudyError(
            f"Expected training cases and at least 2 unrelated images to make a test split from, "
            f"found {len(ranked)}; add images, or use the dataset's published test split."
        )
    wanted = round(fraction * len(groups))
    chosen: set[str] = set()
    for group in free:
        if len(images[group]) <= wanted:
            chosen.add(group)
            wanted -= len(images[group])
    chosen = chosen or {min(free, key=lambda group: len(images[group]))}
    return [replace(case, split="test") if groups[case.image_id] in chosen else case for case in cases]
