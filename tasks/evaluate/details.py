"""A run's scores in detail: with intervals, by group, and how well confidence tells what is right."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tasks.evaluate.calibration import expected_calibration_error, reliability_bins
from tasks.evaluate.comparison import GROUPED, Answers, score_entries
from tasks.records import Outcome

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


def details(outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """What `results.json` holds beside the pooled scores.

    Args:
        outcomes: of all hospitals and configurations.
        seed: of the study.

    Returns `scores`, entries as those of `comparison.json`, and `calibration` of each configuration that is a model:
    `n`, `ece` and `bins` of ten confidences, each with its count and its means.
    """
    entries: list[dict[str, Any]] = []
    calibration = {}
    for name, rows in _by_configuration(outcomes).items():
        answers = Answers(
            tuple(rows), (seed,) * len(rows), tuple(row.image for row in rows), tuple(row.hospital for row in rows)
        )
        entries += score_entries(name, answers)
        sure = [(row.confidence, row.correct) for row in rows if row.confidence is not None]
        if sure:
            bins = reliability_bins(*zip(*sure, strict=True))
            calibration[name] = {
                "n": len(sure),
                "ece": expected_calibration_error(bins),
                "bins": [asdict(each) for each in bins],
            }
    return {"scores": entries, "calibration": calibration}


def _by_configuration(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for row in outcomes:
        found.setdefault(row.configuration, []).append(row)
    return found


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
