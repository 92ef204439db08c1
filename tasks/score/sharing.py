"""What a hospital shares of its judged answers: tallies and sums over images, and nothing of fewer than so many cases.

Of a kind of question that has too few test cases nothing is told at all, so that these cases are in no figure of the
coordinator's. Values of a group that have too few are withheld, and where these could be told by subtraction from all
cases together, so are the smallest of the others (`tasks.cases.small_groups`).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tasks.cases.small_groups import is_small, tellable
from tasks.records import ImageSums, Kind, Outcome
from tasks.score.calibration import Bin, merge_small, reliability_bins
from tasks.score.labels import LABELS, row_of
from tasks.score.score import OTHER, UNTOLD, ClosedRow, OpenRow, Row, summarise
from tasks.score.statistics import sums_by_cluster

GROUPS = ("dataset", "modality", "organ", "topic")
"""Fields of `Outcome` whose values are told apart."""
SUMS = {
    "closed_accuracy": ("closed", "correct"),
    "open_exact_match": ("open", "exact_match"),
    "open_f1": ("open", "f1"),
    "open_bleu": ("open", "bleu"),
    "open_rouge_l": ("open", "rouge_l"),
    "open_token_recall": ("open", "token_recall"),
    "lightfed_accuracy": ("closed", "lightfed"),
    "lightfed_bleu": ("open", "lightfed_bleu"),
    "lightfed_rouge_l": ("open", "lightfed_rouge_l"),
    "llava_med_closed": ("closed", "llava_med"),
    "llava_med_open": ("open", "llava_med"),
}
"""Sums of scores in `ImageSums`, each with the kind of question and the field of `Outcome` that it sums."""
COUNTS = ("n", "correct", "closed", "open")
BY_KIND = ("closed", "closed_accuracy", "open", "open_exact_match")
LABELLED = tuple(f"{what}_{label}" for what in ("right", "gold", "said") for label in LABELS)
COLUMNS = (*COUNTS, *SUMS, *LABELLED)
WHOLE = ("n", "closed", "open", *LABELLED)
"""Columns of counts."""


@dataclass(frozen=True)
class Shared:
    """What leaves a hospital of its answers."""

    tallies: Mapping[str, Any]
    """By configuration, as `Tally.to_json` gives them."""
    calibration: Mapping[str, list[Bin]]
    """By configuration that is a model."""
    sums: Sequence[ImageSums]
    withheld: Mapping[str, Any]
    """What is not told: `questions` (of `closed`, `open`, `choice`), `labels` (whether), `groups` and `by_kind` (values
    by group)."""


@dataclass(frozen=True)
class _Told:
    """What may be told of a hospital's test cases."""

    kinds: Collection[Kind]
    choices: bool
    """Whether multiple choice may be told from other closed questions."""
    labels: bool
    groups: Mapping[str, Collection[str | None]] = field(default_factory=dict)
    """By group, the values that may be told."""
    by_kind: Mapping[str, Collection[str | None]] = field(default_factory=dict)
    """By group, those of them whose closed and open questions may be told apart."""


def share(outcomes: Sequence[Outcome], least: int) -> Shared:
    """What a hospital shares of its answers.

    Args:
        outcomes: of every configuration; one that did not answer all cases answered all multiple choice.
        least: fewest cases of which anything is told.
    """
    cases = list({row.case: row for row in outcomes}.values())
    told = _tellable(cases, least)
    answers: dict[str, list[Outcome]] = {row.configuration: [] for row in outcomes}
    for row in outcomes:
        if row.kind in told.kinds:
            answers[row.configuration].append(row if told.choices else replace(row, choice=0))
    asked = sum(row.kind in told.kinds for row in cases)
    if not told.choices:
        answers = {name: rows if len(rows) == asked else [] for name, rows in answers.items()}
    return Shared(
        tallies={name: summarise(_row(row, told.labels) for row in rows).to_json() for name, rows in answers.items()},
        calibration={name: bins for name, rows in answers.items() if (bins := _bins(rows, least))},
        sums=[
            sums for name, rows in answers.items() for sums in _image_sums(name, rows, told, whole=len(rows) == asked)
        ],
        withheld=_withheld(cases, told),
    )


def _tellable(cases: Sequence[Outcome], least: int) -> _Told:
    counts = Counter(row.kind for row in cases)
    kinds = {kind for kind, count in counts.items() if not is_small(count, least)}
    kept = [row for row in cases if row.kind in kinds]
    of_choice = Counter(row.choice for row in kept if row.kind == "closed")
    choices = not any(is_small(count, least) for count in of_choice.values())
    labels = Counter((row.gold, row.choice and choices) for row in kept if row.gold is not None)
    groups, by_kind = {}, {}
    for group in GROUPS:
        values: dict[str | None, list[int]] = {}
        for row in kept:
            values.setdefault(getattr(row, group), [0, 0])[row.kind == "open"] += 1
        groups[group] = tellable({value: (sum(both),) for value, both in values.items()}, least)
        by_kind[group] = tellable(values, least, among=groups[group])
    return _Told(kinds, choices, not any(is_small(count, least) for count in labels.values()), groups, by_kind)


def _withheld(cases: Sequence[Outcome], told: _Told) -> dict[str, Any]:
    """What of the cases is not told, by name alone."""
    kept = [row for row in cases if row.kind in told.kinds]
    values = {group: {value for row in kept if (value := getattr(row, group))} for group in GROUPS}
    questions = sorted({row.kind for row in cases} - set(told.kinds))
    return {
        "questions": [*questions, *([] if told.choices else ["choice"])],
        "labels": not told.labels,
        "groups": {group: rest for group in GROUPS if (rest := sorted(values[group] - set(told.groups[group])))},
        "by_kind": {
            group: rest
            for group in GROUPS
            if (rest := sorted(values[group] & set(told.groups[group]) - set(told.by_kind[group])))
        },
    }


def _row(row: Outcome, labelled: bool) -> Row:
    """The judgement in words that may be told."""
    if row.gold is None or row.predicted is None:
        return OpenRow(row.exact_match, row.bleu, row.rouge_l, row.token_recall, row.f1)
    if not labelled:
        return ClosedRow(UNTOLD, UNTOLD if row.correct else OTHER, bool(row.choice))
    return row_of(row.gold, row.predicted, bool(row.choice))


def _bins(rows: Sequence[Outcome], least: int) -> list[Bin]:
    """Reliability bins; none where no answer has a confidence."""
    sure = [(row.confidence, row.correct) for row in rows if row.confidence is not None]
    return merge_small(reliability_bins(*zip(*sure, strict=True)), least) if sure else []


def _image_sums(name: str, rows: Sequence[Outcome], told: _Told, whole: bool) -> list[ImageSums]:
    """Of all rows, and of those of each group where these are the `whole` of the hospital's cases."""
    if not rows:
        return []
    columns, images = _columns(rows), np.array([row.image for row in rows])
    labels = () if told.labels else LABELLED
    found = _sums(name, "all", None, columns, images, hidden=labels)
    for group in GROUPS if whole else ():
        own = np.array([getattr(row, group) for row in rows], object)
        for value in sorted(value for value in told.groups[group] if value):
            hidden = {*SUMS, *LABELLED} - set(BY_KIND)
            hidden |= set() if value in told.by_kind[group] else set(BY_KIND)
            found += _sums(name, group, value, columns[own == value], images[own == value], hidden=hidden)
    return found


def _columns(rows: Sequence[Outcome]) -> np.ndarray:
    """(N, M): of each of N answers what it adds to each of M COLUMNS."""
    kinds = {kind: np.array([row.kind == kind for row in rows], float) for kind in ("closed", "open")}
    correct = np.array([row.correct for row in rows], float)
    found = [np.ones(len(rows)), correct, kinds["closed"], kinds["open"]]
    for kind, of in SUMS.values():
        found.append(kinds[kind] * np.array([getattr(row, of) for row in rows], float))
    gold, said = (np.array([getattr(row, of) for row in rows], float) for of in ("gold", "predicted"))
    right = np.where(gold == said, gold, np.nan)
    found += [np.equal(each, place) for each in (right, gold, said) for place in range(len(LABELS))]
    return np.stack(found, axis=1).astype(float)


def _sums(
    name: str, group: str, value: str | None, columns: np.ndarray, images: np.ndarray, hidden: Collection[str]
) -> list[ImageSums]:
    """By image the sums of columns, in an order that follows from what is shown of these alone."""
    shown = [column for column in COLUMNS if column not in hidden]
    sums = sums_by_cluster(columns[:, [COLUMNS.index(column) for column in shown]], images.tolist())
    untold = dict.fromkeys(hidden)
    rows: list[dict[str, Any]] = [dict(zip(shown, map(_number, shown, row), strict=True)) for row in sums.tolist()]
    return [ImageSums(name, group, value, **row, **untold) for row in rows]  # type: ignore[arg-type]


def _number(column: str, total: float) -> int | float:
    return int(total) if column in WHOLE else total
