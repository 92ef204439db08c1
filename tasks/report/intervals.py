"""A run's scores in detail: with intervals, by group, and how well confidence tells what is right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tasks.records import ImageSums
from tasks.score.calibration import Bin, expected_calibration_error, pool_bins
from tasks.score.measures import GROUPED, GROUPS, HOLDS, MEASURES, SEED
from tasks.score.sharing import LABELLED
from tasks.score.statistics import estimate, sums_by_cluster

HEADLINE = {
    "closed_accuracy": "closed accuracy",
    "closed_f1": "closed F1",
    "open_exact_match": "open exact match",
    "open_bleu": "BLEU",
    "open_rouge_l": "ROUGE-L",
}
"""Measures of the table with intervals."""
PUBLISHED = {
    "lightfed_accuracy": "LightFED closed",
    "lightfed_bleu": "LightFED BLEU",
    "lightfed_rouge_l": "LightFED ROUGE-L",
    "llava_med_closed": "LLaVA-Med closed",
    "llava_med_open": "LLaVA-Med open",
}
"""Measures by the rules of published systems."""
FEWEST = 10
"""Fewest questions of a group that is shown: of fewer, an interval says next to nothing."""


def details(shared: Sequence[tuple[Mapping[str, Any], Sequence[ImageSums]]], seed: int) -> dict[str, Any]:
    """What `results.json` holds beside the pooled scores.

    Args:
        shared: each hospital's `scores.json` and `sums.parquet`.
        seed: of the study.

    Returns `scores`, entries as those of `comparison.json`, and `calibration` of each configuration that is a model:
    `n`, `ece` and `bins` of ten confidences, each with its count and its sums. Nothing is in them that a hospital
    withholds.
    """
    names = dict.fromkeys(name for told, _ in shared for name in told["tallies"])
    own = {
        name: [(told["hospital"], [row for row in rows if row.configuration == name]) for told, rows in shared]
        for name in names
    }
    return {
        "scores": [entry for name in names for entry in _score_entries(name, own[name], seed)],
        "calibration": {
            name: _calibration([told["calibration"][name] for told, _ in shared if name in told["calibration"]])
            for name in names
            if any(name in told["calibration"] for told, _ in shared)
        },
    }


def _calibration(shared: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    bins = pool_bins([[Bin(int(n), *sums) for n, *sums in each] for each in shared])
    return {
        "n": sum(each.n for each in bins),
        "ece": expected_calibration_error(bins),
        "bins": [asdict(each) for each in bins],
    }


def _score_entries(
    name: str, hospitals: Sequence[tuple[str, Sequence[ImageSums]]], seed: int
) -> Iterator[dict[str, Any]]:
    """A configuration's scores: each measure over all questions, then those of GROUPED for each group."""
    rows = [row for _, each in hospitals for row in each]
    everything = [row for row in rows if row.group == "all"]
    for measure in MEASURES:
        for entry in _entry(name, measure, "all", None, everything):
            yield entry | {"by_seed": {str(seed): entry["score"]}}
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
            for measure in GROUPED:
                yield from _entry(name, measure, group, value, part)


def _kind_entries(name: str, rows: Sequence[ImageSums]) -> Iterator[dict[str, Any]]:
    """The share of right answers to closed questions, and to open ones, which is what GROUPED has for their kind."""
    for kind, of_kind in (("closed", "closed_accuracy"), ("open", "open_exact_match")):
        for entry in _entry(name, of_kind, "kind", kind, rows):
            yield entry | {"measure": "correct"}
            yield entry


def _entry(
    name: str, measure: str, group: str, value: str | None, rows: Sequence[ImageSums]
) -> Iterator[dict[str, Any]]:
    """The score of one measure; nothing where it holds no such question, or a hospital withholds what it is made of."""
    how = MEASURES[measure]
    number = how.kind or "n"
    parts = LABELLED if how.field == "gold" else (measure, number)
    asked = [row for row in rows if getattr(row, number)]
    if not asked or any(getattr(row, part) is None for row in asked for part in parts):
        return
    columns = np.array([[getattr(row, part) for part in parts] for row in asked], float)
    found = estimate(sums_by_cluster(columns, range(len(asked))), how.statistic, SEED)
    yield {
        "configuration": name,
        "measure": measure,
        "group": group,
        "value": value,
        "n": sum(getattr(row, number) for row in asked),
        "images": len(asked),
        "score": found.value,
        "interval": found.interval,
        "interval_holds": HOLDS[False],
    }


def interval_rows(results: Mapping[str, Any], measures: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Some measures of what a run compares, over all questions, as text with intervals: headings, then the rows.

    Measures of kinds that were not asked have no column.
    """
    scores, names = results["scores"], [*results["configurations"], *results["baselines"]]
    found = {(each["configuration"], each["measure"]): each for each in scores if each["group"] == "all"}
    asked = {measure: title for measure, title in measures.items() if any(each[1] == measure for each in found)}
    rows = [(name.replace("_", " "), *(told(found.get((name, measure))) for measure in asked)) for name in names]
    return [("", *asked.values()), *rows]


def group_rows(scores: Sequence[Mapping[str, Any]], configuration: str) -> list[tuple[str, ...]]:
    """One configuration's scores by modality, organ and so on as text: headings, then a row for each group."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for each in scores:
        if each["configuration"] == configuration and each["group"] != "all":
            found.setdefault((each["group"], each["value"]), {})[each["measure"]] = each
    rows = [
        (f"{group}: {value}", str(of["correct"]["n"]), *(told(of.get(measure)) for measure in GROUPED))
        for (group, value), of in found.items()
        if of["correct"]["n"] >= FEWEST
    ]
    return [("", "n", "all right", "closed accuracy", "open exact match"), *rows]


def told(entry: Mapping[str, Any] | None) -> str:
    """A score with its interval as text, as `0.838 [0.799, 0.872]`."""
    if entry is None:
        return "-"
    ends = "" if entry["interval"] is None else " [{:.3f}, {:.3f}]".format(*entry["interval"])
    return f"{entry['score']:.3f}{ends}"
