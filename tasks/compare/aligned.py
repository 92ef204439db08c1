"""Aligns the answers of configurations to the same cases, so that all are in one order."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from tasks.cases.small_groups import publishable
from tasks.errors import StudyError
from tasks.records import Outcome
from tasks.records.comparison import Images
from tasks.score.metrics import Metric

Outcomes = Mapping[str, Mapping[int, Sequence[Outcome]]]
"""By configuration and seed."""


@dataclass(frozen=True)
class Answers:
    """One configuration's outcomes on one split; all configurations have the same order."""

    rows: tuple[Outcome, ...]
    seeds: tuple[int, ...]
    """The seed of each row."""
    images: tuple[Hashable, ...]
    """The image of each row; two seeds with a question on one image have the same value here."""
    hospitals: tuple[str, ...]
    """The hospital that holds the case in the federation, for centralised configurations too."""

    def chosen(self, metric: Metric, group: str = "all", value: str | None = None) -> list[int]:
        """Indices of the rows that a metric covers, within a group."""
        return [
            place
            for place, row in enumerate(self.rows)
            if metric.kind in (None, row.kind) and (group == "all" or self.of(group, place) == value)
        ]

    def publishable(self, group: str, least: int) -> tuple[set[str | None], set[str | None]]:
        """The values of a group that may be reported, and those whose closed and open questions may be reported
        separately.

        A case counts once, however many seeds include it.
        """
        cases: dict[str | None, tuple[set[int], set[int]]] = {}
        for place, row in enumerate(self.rows):
            cases.setdefault(self.of(group, place), (set(), set()))[row.kind == "open"].add(row.case)
        counts = {value: [len(each) for each in both] for value, both in cases.items()}
        reportable = publishable({value: (sum(both),) for value, both in counts.items()}, least)
        return reportable - {None}, publishable(counts, least, among=reportable)

    def of(self, group: str, place: int) -> str | None:
        """The value of a group in one row."""
        return self.hospitals[place] if group == "hospital" else getattr(self.rows[place], group)

    def image_counts(self) -> Images:
        """How many images have questions, for each seed and for all seeds together; an image of several seeds counts
        once."""
        images_of: dict[int, set[Hashable]] = {}
        for image, seed in zip(self.images, self.seeds, strict=True):
            images_of.setdefault(seed, set()).add(image)
        by_seed = {str(seed): len(images) for seed, images in images_of.items()}
        return {"images": len(set(self.images)), "images_by_seed": by_seed}


def align(outcomes: Outcomes, reference: str) -> dict[str, Answers]:
    """Put every configuration's answers into the order of the reference's.

    Args:
        outcomes: by configuration and seed; a case has the same number in every configuration, and an image at every
            seed.
        reference: the configuration whose hospitals hold the cases.

    Raises StudyError where a configuration did not answer exactly the reference's cases.
    """
    places = [(seed, row) for seed, rows in outcomes[reference].items() for row in sorted(rows, key=_case)]
    hospitals = tuple(row.hospital for _, row in places)
    seeds = tuple(seed for seed, _ in places)
    images = tuple(row.image for _, row in places)
    aligned = {}
    for name, by_seed in outcomes.items():
        found = [(seed, row) for seed in outcomes[reference] for row in sorted(by_seed.get(seed, ()), key=_case)]
        if [(seed, row.case) for seed, row in found] != [(seed, row.case) for seed, row in places]:
            raise StudyError(
                f"Expected {name} to answer the {len(places)} test cases of {reference}, found {len(found)} answers "
                "to other ones: compare configurations that share dataset, split and partition.kind."
            )
        aligned[name] = Answers(tuple(row for _, row in found), seeds, images, hospitals)
    return aligned


def _case(row: Outcome) -> int:
    return row.case
