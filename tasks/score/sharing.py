"""What a hospital shares of its judged answers: tallies and sums over images, and nothing about too few cases.

Nothing is shared about a kind of question with fewer than `least` test cases, so these cases are in no figure of the
coordinator. Values of a group with too few cases are withheld. Where they would follow by subtraction from the figures
of all cases, the smallest of the other values are withheld too (`tasks.cases.small_groups`).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.cases.small_groups import is_small, publishable
from tasks.records import Kind, Outcome
from tasks.records.shared_documents import TallyDocument, WithheldScores
from tasks.score.calibration import Bin, merge_small, reliability_bins
from tasks.score.groups import SHARED_GROUPS
from tasks.score.image_sums import ALWAYS, LABELLED, ImageSums, columns, counted, counts, summed
from tasks.score.labels import LABELS, row_of
from tasks.score.metrics import main_metrics, pooled_metrics
from tasks.score.score import OTHER, UNTOLD, ClosedRow, OpenRow, Row, summarise
from tasks.score.statistics import sums_by_cluster

COUNTS = ("n", "correct", "closed", "open")
"""The last sort keys: they order rows whose other figures are equal."""


@dataclass(frozen=True)
class Shared:
    """All that leaves a hospital about its answers."""

    tallies: dict[str, TallyDocument]
    """By configuration, as `Tally.to_json` returns them."""
    calibration: Mapping[str, list[Bin]]
    """By configuration, for those that are models."""
    sums: Sequence[ImageSums]
    withheld: WithheldScores
    """What is withheld."""


@dataclass(frozen=True)
class _Shareable:
    """What may be shared about a hospital's test cases."""

    kinds: Collection[Kind]
    choices: bool
    """Whether multiple choice may be separated from other closed questions."""
    labels: bool
    groups: Mapping[str, Collection[str | None]] = field(default_factory=dict)
    """By group, the values that may be shared."""
    by_kind: Mapping[str, Collection[str | None]] = field(default_factory=dict)
    """By group, the values whose closed and open questions may be shared separately."""


def share(outcomes: Sequence[Outcome], least: int) -> Shared:
    """Compute what a hospital shares of its answers.

    Args:
        outcomes: of every configuration; one that did not answer all cases answered all multiple choice.
        least: fewest cases about which anything is shared.
    """
    cases = list({row.case: row for row in outcomes}.values())
    shareable = _publishable(cases, least)
    answers: dict[str, list[Outcome]] = {row.configuration: [] for row in outcomes}
    for row in outcomes:
        if row.kind in shareable.kinds:
            answers[row.configuration].append(row if shareable.choices else replace(row, choice=0))
    total = sum(row.kind in shareable.kinds for row in cases)
    if not shareable.choices:
        answers = {name: rows if len(rows) == total else [] for name, rows in answers.items()}
    return Shared(
        tallies={
            name: summarise(_row(row, shareable.labels) for row in rows).to_json() for name, rows in answers.items()
        },
        calibration={name: bins for name, rows in answers.items() if (bins := _bins(rows, least))},
        sums=[
            sums
            for name, rows in answers.items()
            for sums in _image_sums(name, rows, shareable, whole=len(rows) == total)
        ],
        withheld=_withheld(cases, shareable),
    )


def _publishable(cases: Sequence[Outcome], least: int) -> _Shareable:
    counts = Counter(row.kind for row in cases)
    kinds = {kind for kind, count in counts.items() if not is_small(count, least)}
    kept = [row for row in cases if row.kind in kinds]
    of_choice = Counter(row.choice for row in kept if row.kind == "closed")
    choices = not any(is_small(count, least) for count in of_choice.values())
    labels = Counter((row.gold, row.choice and choices) for row in kept if row.gold is not None)
    groups, by_kind = {}, {}
    for group in SHARED_GROUPS:
        values: dict[str | None, list[int]] = {}
        for row in kept:
            values.setdefault(getattr(row, group), [0, 0])[row.kind == "open"] += 1
        groups[group] = publishable({value: (sum(both),) for value, both in values.items()}, least)
        by_kind[group] = publishable(values, least, among=groups[group])
    return _Shareable(kinds, choices, not any(is_small(count, least) for count in labels.values()), groups, by_kind)


def _withheld(cases: Sequence[Outcome], shareable: _Shareable) -> WithheldScores:
    """What is withheld about the cases, by name only."""
    kept = [row for row in cases if row.kind in shareable.kinds]
    values = {group: {value for row in kept if (value := getattr(row, group))} for group in SHARED_GROUPS}
    questions = sorted({row.kind for row in cases} - set(shareable.kinds))
    return {
        "questions": [*questions, *([] if shareable.choices else ["choice"])],
        "labels": not shareable.labels,
        "groups": {
            group: rest for group in SHARED_GROUPS if (rest := sorted(values[group] - set(shareable.groups[group])))
        },
        "by_kind": {
            group: rest
            for group in SHARED_GROUPS
            if (rest := sorted(values[group] & set(shareable.groups[group]) - set(shareable.by_kind[group])))
        },
    }


def _row(row: Outcome, labelled: bool) -> Row:
    """The judgement, with labels that may be shared."""
    if row.gold is None or row.predicted is None:
        return OpenRow({metric.field: row.scores[metric.field] for metric in pooled_metrics()})
    if not labelled:
        return ClosedRow(UNTOLD, UNTOLD if row.correct else OTHER, bool(row.choice))
    return row_of(row.gold, row.predicted, bool(row.choice))


def _bins(rows: Sequence[Outcome], least: int) -> list[Bin]:
    """Reliability bins; an empty list where no answer has a confidence."""
    sure = [(row.confidence, row.correct) for row in rows if row.confidence is not None]
    return merge_small(reliability_bins(*zip(*sure, strict=True)), least) if sure else []


def _image_sums(name: str, rows: Sequence[Outcome], shareable: _Shareable, whole: bool) -> list[ImageSums]:
    """Sums of all rows, and of each group where the rows cover the `whole` of the hospital's cases."""
    if not rows:
        return []
    figures, images = _figures(rows), np.array([row.image for row in rows])
    labels = () if shareable.labels else LABELLED
    found = _sums(name, "all", None, figures, images, hidden=labels)
    by_kind = {column for metric in main_metrics() if metric.kind for column in (counted(metric), metric.name)}
    for group in SHARED_GROUPS if whole else ():
        values = np.array([getattr(row, group) for row in rows], object)
        for value in sorted(value for value in shareable.groups[group] if value):
            hidden = set(columns()) - {*ALWAYS, *(by_kind if value in shareable.by_kind[group] else ())}
            found += _sums(name, group, value, figures[values == value], images[values == value], hidden=hidden)
    return found


def _ordered() -> list[str]:
    """The columns of figures in the order of the sort keys; the last one decides first."""
    return list(dict.fromkeys((*COUNTS, *columns())))


def _figures(rows: Sequence[Outcome]) -> np.ndarray:
    """(N, M): what each of N answers adds to each of M columns, in the order of `_ordered`."""
    found = {kind: np.array([row.kind == kind for row in rows], float) for kind in ("closed", "open")}
    found["n"] = np.ones(len(rows))
    for metric in summed():
        found[metric.name] = found[counted(metric)] * np.array(metric.values(rows), float)
    gold, said = (np.array([getattr(row, of) for row in rows], float) for of in ("gold", "predicted"))
    right = np.where(gold == said, gold, np.nan)
    labels = [np.equal(each, place) for each in (right, gold, said) for place in range(len(LABELS))]
    found |= dict(zip(LABELLED, labels, strict=True))
    return np.stack([found[column] for column in _ordered()], axis=1).astype(float)


def _sums(
    name: str, group: str, value: str | None, figures: np.ndarray, images: np.ndarray, hidden: Collection[str]
) -> list[ImageSums]:
    """Sums of figures by image; their order depends only on the columns that are kept."""
    kept = {column: place for place, column in enumerate(_ordered()) if column not in hidden}
    whole = counts()
    return [
        ImageSums(
            name,
            group,
            value,
            dict.fromkeys(hidden)
            | {column: int(total) if column in whole else total for column, total in zip(kept, row, strict=True)},
        )
        for row in sums_by_cluster(figures[:, list(kept.values())], images.tolist()).tolist()
    ]
