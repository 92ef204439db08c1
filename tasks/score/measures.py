"""A comparison of configurations on the same cases: scores with intervals, and by group.

A score over several seeds is the mean of the seeds' own, and its interval holds the chance of training and of the test
images. With one seed there is no telling what another training would give: the interval is over the images alone.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.cases.small_groups import tellable
from tasks.records import Outcome
from tasks.score.statistics import Statistic, estimate, label_counts, macro_f1, mean, sums_by_cluster
from tasks.score.trainings import over_trainings

SEED = 0
"""Of every resampling: the same rows give the same intervals."""
HOLDS = {False: "test images", True: "training and test images"}
"""Whose chance an interval holds, by whether there are several seeds."""


@dataclass(frozen=True)
class Measure:
    """A score of an answer, and the kind of question that it is of."""

    field: str
    """Where an answer's score stands; `gold` for a figure of its labels."""
    kind: str | None = None
    """`closed` or `open`; all questions where not given."""
    binary: bool = False
    """Whether it is 0 or 1, so that McNemar's test applies."""
    statistic: Statistic = mean
    """The figure, of sums over the rows of `columns`."""

    def values(self, rows: Sequence[Outcome]) -> list[Any]:
        """The score of each answer, or its label."""
        return [getattr(row, self.field) for row in rows]

    def columns(self, rows: Sequence[Outcome]) -> np.ndarray:
        """What the figure is made of: (N, M), a row for each answer."""
        if self.statistic is macro_f1:
            return label_counts(self.values(rows), [row.predicted for row in rows])
        return np.column_stack([self.values(rows), np.ones(len(rows))])


MEASURES = {
    "correct": Measure("correct", binary=True),
    "closed_accuracy": Measure("correct", "closed", binary=True),
    "closed_f1": Measure("gold", "closed", statistic=macro_f1),
    "open_exact_match": Measure("exact_match", "open", binary=True),
    "open_f1": Measure("f1", "open"),
    "open_bleu": Measure("bleu", "open"),
    "open_rouge_l": Measure("rouge_l", "open"),
    "open_token_recall": Measure("token_recall", "open"),
    "lightfed_accuracy": Measure("lightfed", "closed", binary=True),
    "lightfed_bleu": Measure("lightfed_bleu", "open"),
    "lightfed_rouge_l": Measure("lightfed_rouge_l", "open"),
    "llava_med_closed": Measure("llava_med", "closed"),
    "llava_med_open": Measure("llava_med", "open"),
}
GROUPED = ("correct", "closed_accuracy", "open_exact_match")
"""Measures that are told for each group too."""
GROUPS = ("dataset", "modality", "organ", "topic", "kind", "hospital")


@dataclass(frozen=True)
class Answers:
    """One configuration's outcomes on one split, in one order for all configurations."""

    rows: tuple[Outcome, ...]
    seeds: tuple[int, ...]
    """The seed of each row."""
    images: tuple[Hashable, ...]
    """What is not independent: two seeds that ask about one image have the same here."""
    hospitals: tuple[str, ...]
    """Who holds the case where hospitals are federated: a centralised study's cases have theirs too."""

    def chosen(self, measure: Measure, group: str = "all", value: str | None = None) -> list[int]:
        """Places of the rows that a measure is of, within a group."""
        return [
            place
            for place, row in enumerate(self.rows)
            if measure.kind in (None, row.kind) and (group == "all" or self.of(group, place) == value)
        ]

    def tellable(self, group: str, least: int) -> tuple[set[str | None], set[str | None]]:
        """The values of a group that may be told of, and those whose closed and open questions may be told apart.

        A case counts once, however many seeds ask it.
        """
        cases: dict[str | None, tuple[set[int], set[int]]] = {}
        for place, row in enumerate(self.rows):
            cases.setdefault(self.of(group, place), (set(), set()))[row.kind == "open"].add(row.case)
        counts = {value: [len(each) for each in both] for value, both in cases.items()}
        told = tellable({value: (sum(both),) for value, both in counts.items()}, least)
        return told - {None}, tellable(counts, least, among=told)

    def of(self, group: str, place: int) -> str | None:
        """The group's value of one row."""
        return self.hospitals[place] if group == "hospital" else getattr(self.rows[place], group)


def score_entries(name: str, answers: Answers, least: int = 1) -> Iterator[dict[str, Any]]:
    """A configuration's scores: each measure over all questions, then those of GROUPED for each group.

    What would tell of fewer than `least` cases is left out, and what tells that by subtraction.
    """
    kinds, _ = answers.tellable("kind", least)
    for measure, how in MEASURES.items():
        if how.kind is None or how.kind in kinds:
            yield from _entry(name, answers, measure, "all", None)
    for group in GROUPS:
        told, by_kind = answers.tellable(group, least)
        for value in sorted(map(str, told)):
            for measure in GROUPED:
                if MEASURES[measure].kind is None or value in by_kind:
                    yield from _entry(name, answers, measure, group, value)


def _entry(name: str, answers: Answers, measure: str, group: str, value: str | None) -> Iterator[dict[str, Any]]:
    """The score of one measure within one group; nothing where it holds no such question."""
    how = MEASURES[measure]
    places = answers.chosen(how, group, value)
    if not places:
        return
    columns = how.columns([answers.rows[place] for place in places])
    images = [answers.images[place] for place in places]
    seeds = [answers.seeds[place] for place in places]
    found = over_trainings(columns, seeds, images, how.statistic)
    several = len(found.by_seed) > 1
    # Of one training, the bootstrap: it knows by itself that no score lies beyond 0 and 1.
    sure = found if several else estimate(sums_by_cluster(columns, images), how.statistic, SEED)
    entry: dict[str, Any] = {
        "configuration": name,
        "measure": measure,
        "group": group,
        "value": value,
        "n": len(places),
        "images": len(set(images)),
        "score": found.value,
        "interval": sure.interval and [max(0.0, sure.interval[0]), min(1.0, sure.interval[1])],
        "interval_holds": HOLDS[several],
    }
    if group == "all":
        names = map(str, dict.fromkeys(seeds))
        entry["by_seed"] = dict(zip(names, found.by_seed, strict=True))
    yield entry
