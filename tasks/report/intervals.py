"""A run's scores in detail: with intervals, by group, and with the calibration of confidence."""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.records.comparison import ScoreEntry
from tasks.records.run_document import Calibration, Details, RunDocument
from tasks.records.shared_documents import ScoresDocument
from tasks.score.calibration import Bin, expected_calibration_error, pool_bins
from tasks.score.groups import GROUPS, HOLDS
from tasks.score.image_sums import LABELLED, ImageSums, counted
from tasks.score.metrics import METRICS, Metric, main_metrics, titled
from tasks.score.statistics import SEED, estimate, sums_by_cluster

FEWEST = 10
"""Fewest questions of a group that is shown: below this, an interval is too wide to be useful."""


def details(shared: Sequence[tuple[ScoresDocument, Sequence[ImageSums]]], seed: int) -> Details:
    """The detailed parts of `results.json`, beside the pooled scores.

    Args:
        shared: each hospital's `scores.json` and `sums.parquet`.
        seed: of the study.

    Returns `scores`, with entries like those of `comparison.json`, and `calibration` of each configuration that is a
    model: `n`, `ece` and ten confidence `bins`, each with its count and its sums. Nothing that a hospital withholds is
    included.
    """
    names = dict.fromkeys(name for scores, _ in shared for name in scores["tallies"])
    by_hospital = {
        name: [(scores["hospital"], [row for row in rows if row.configuration == name]) for scores, rows in shared]
        for name in names
    }
    return {
        "scores": [entry for name in names for entry in _score_entries(name, by_hospital[name], seed)],
        "calibration": {
            name: _calibration(bins)
            for name in names
            if (bins := [scores["calibration"][name] for scores, _ in shared if name in scores["calibration"]])
        },
    }


def _calibration(shared: Sequence[Sequence[Sequence[float]]]) -> Calibration:
    bins = pool_bins([[Bin(int(n), *sums) for n, *sums in each] for each in shared])
    return {
        "n": sum(each.n for each in bins),
        "ece": expected_calibration_error(bins),
        "bins": [{"n": each.n, "confidence": each.confidence, "correct": each.correct} for each in bins],
    }


def _score_entries(name: str, hospitals: Sequence[tuple[str, Sequence[ImageSums]]], seed: int) -> Iterator[ScoreEntry]:
    """A configuration's scores: each metric over all questions, then the main metrics for each group."""
    rows = [row for _, each in hospitals for row in each]
    everything = [row for row in rows if row.group == "all"]
    for metric in METRICS.values():
        for entry in _entry(name, metric, "all", None, everything):
            yield {**entry, "by_seed": {str(seed): entry["score"]}}
    for group in GROUPS:
        if group == "kind":
            yield from _kind_entries(name, everything)
            continue
        parts: dict[str, list[ImageSums]] = {}
        if group == "hospital":
            parts = {hospital: [row for row in each if row.group == "all"] for hospital, each in hospitals}
        for row in rows:
            if row.group == group and row.value:
                parts.setdefault(row.value, []).append(row)
        for value, part in sorted(parts.items()):
            for metric in main_metrics():
                yield from _entry(name, metric, group, value, part)


def _kind_entries(name: str, rows: Sequence[ImageSums]) -> Iterator[ScoreEntry]:
    """The main metrics of closed and of open questions; for each kind, the share of right answers comes first.

    That share is the first main metric of the kind, as an image's sum of right answers is not split by kind.
    """
    for kind in ("closed", "open"):
        first, *others = [metric for metric in main_metrics() if metric.kind == kind]
        for entry in _entry(name, first, "kind", kind, rows):
            yield {**entry, "measure": "correct"}
            yield entry
        for metric in others:
            yield from _entry(name, metric, "kind", kind, rows)


def _entry(name: str, metric: Metric, group: str, value: str | None, rows: Sequence[ImageSums]) -> Iterator[ScoreEntry]:
    """The score of one metric; nothing where there is no question of it, or a hospital withholds a needed column."""
    number = counted(metric)
    parts = LABELLED if metric.of_labels else (metric.name, number)
    by_image = [row.sums for row in rows if row.sums[number]]
    if not by_image or any(sums[part] is None for sums in by_image for part in parts):
        return
    columns = np.array([[sums[part] for part in parts] for sums in by_image], float)
    found = estimate(sums_by_cluster(columns, range(len(by_image))), metric.statistic, SEED)
    yield {
        "configuration": name,
        "measure": metric.name,
        "group": group,
        "value": value,
        "n": sum(int(sums[number] or 0) for sums in by_image),
        "images": len(by_image),
        "score": found.value,
        "interval": found.interval,
        "interval_holds": HOLDS[False],
    }


def interval_rows(results: RunDocument, *, published: bool = False) -> list[tuple[str, ...]]:
    """The metrics (ours, or those of `published` systems) of a run as text: headings, then rows with intervals.

    They cover all questions. Metrics of kinds without questions have no column.
    """
    scores, names = results["scores"], [*results["configurations"], *results["baselines"]]
    found = {(each["configuration"], each["measure"]): each for each in scores if each["group"] == "all"}
    measured = {name for _, name in found}
    metrics = [metric for metric in titled(published=published) if metric.with_interval and metric.name in measured]
    rows = [
        (name.replace("_", " "), *(_cell(metric, found.get((name, metric.name))) for metric in metrics))
        for name in names
    ]
    return [("", *(metric.heading for metric in metrics)), *rows]


def group_rows(scores: Sequence[ScoreEntry], configuration: str) -> list[tuple[str, ...]]:
    """One configuration's scores by modality, organ and so on, as text: headings, then a row for each group value."""
    metrics = main_metrics()
    found: dict[tuple[str, str | None], dict[str, ScoreEntry]] = {}
    for each in scores:
        if each["configuration"] == configuration and each["group"] != "all":
            found.setdefault((each["group"], each["value"]), {})[each["measure"]] = each
    rows = [
        (
            f"{group.replace('_', ' ')}: {value}",
            str(of["correct"]["n"]),
            *(_cell(metric, of.get(metric.name)) for metric in metrics),
        )
        for (group, value), of in found.items()
        if of["correct"]["n"] >= FEWEST
    ]
    return [("", "n", *(metric.heading for metric in metrics)), *rows]


def _cell(metric: Metric, entry: ScoreEntry | None) -> str:
    return "-" if entry is None else metric.text_with_interval(entry["score"], entry["interval"])
