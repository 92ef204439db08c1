"""The output of `fed-rag score` for a file of predictions: a row of scores for each line, and a summary."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np

from tasks.score.calibration import expected_calibration_error, reliability_bins
from tasks.score.lines import Line
from tasks.score.metrics import answer_scores, pooled_metrics
from tasks.score.overlap import bleu_signatures
from tasks.score.published import RULES, disagreeing, lightfed_summary, llava_med_released
from tasks.score.score import ClosedRow, OpenRow, Row, score_row, scores, summarise
from tasks.score.statistics import SEED, bootstrap_intervals, estimate, label_counts, macro_f1, sums_by_cluster

KINDS = ("closed", "open")
MOST_COUNTS = 2**24
"""Largest number of counts held in memory for the interval of a macro F1; above it, macro F1 has no interval."""


def score_document(lines: Sequence[Line]) -> dict[str, Any]:
    """Score the lines: rows in the order of the lines, and a summary that does not depend on the order."""
    judged = [score_row(line.prediction, line.answer, line.kind, line.options) for line in lines]
    rows = [_row(line, row) for line, row in zip(lines, judged, strict=True)]
    return {"rows": rows, "summary": _summary(lines, judged, rows)}


def _row(line: Line, judged: Row) -> dict[str, Any]:
    """One line's scores: `correct` by our rule, the text scores (for both kinds), and those of the published rules.

    For each published rule a flag says whether it disagrees with `correct`.
    """
    scores = answer_scores(line.prediction, line.answer, line.kind)
    scores |= {"llava_med_released": llava_med_released(line.prediction, line.answer, line.kind)}
    return {
        "id": line.id,
        "kind": line.kind,
        "correct": judged.correct,
        **scores,
        **disagreeing(scores, correct=judged.correct),
    }


def _summary(lines: Sequence[Line], judged: Sequence[Row], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    images = [place if line.image is None else f"image {line.image}" for place, line in enumerate(lines)]
    sure = [
        (line.confidence, row.correct) for line, row in zip(lines, judged, strict=True) if line.confidence is not None
    ]
    bins = reliability_bins(*zip(*sure, strict=True)) if sure else []
    return {
        "n": len(lines),
        "accuracy": float(np.mean([row.correct for row in judged])),
        **scores(summarise(judged)),
        "intervals": _intervals(judged, images),
        "lightfed": lightfed_summary([(line.prediction, line.answer, line.kind) for line in lines]),
        "llava_med": {kind: _mean([row["llava_med"] for row in rows if row["kind"] == kind]) for kind in KINDS},
        "differing": {rule: sum(row[f"{rule}_differs"] for row in rows) for rule in RULES},
        "calibration": {
            "n": len(sure),
            "ece": expected_calibration_error(bins),
            "bins": [asdict(each) for each in bins],
        },
        "languages": {name: sum(line.language == name for line in lines) for name in _languages(lines)},
        "definitions": {
            "bleu": bleu_signatures(),
            "intervals": f"95 %, bootstrap over {len(set(images))} images, or rows that name none",
        },
    }


def _languages(lines: Sequence[Line]) -> list[str]:
    return sorted({line.language for line in lines if line.language is not None})


def _intervals(judged: Sequence[Row], images: Sequence[Hashable]) -> dict[str, Any]:
    """Intervals by the name of the figure; None where a figure has no interval."""
    closed = {place: row for place, row in enumerate(judged) if isinstance(row, ClosedRow)}
    opened = {place: row.scores for place, row in enumerate(judged) if isinstance(row, OpenRow)}
    chosen = {place: row for place, row in closed.items() if row.choice}

    def of(values: Mapping[int, Sequence[float]]) -> list[list[float] | None]:
        found = bootstrap_intervals(np.array([*values.values()], float), [images[place] for place in values], SEED)
        return [each.interval for each in found]

    def right(rows: Mapping[int, Row]) -> list[float] | None:
        return of({place: [row.correct] for place, row in rows.items()})[0] if rows else None

    fields = [metric.field for metric in pooled_metrics()]
    found = of({place: [scores[field] for field in fields] for place, scores in opened.items()}) if opened else []
    return {
        "accuracy": right(dict(enumerate(judged))),
        "closed": {"accuracy": right(closed), "f1_macro": _f1_interval(closed, images)},
        "open": dict(zip_longest(fields, found)),
        "choice": {"accuracy": right(chosen)},
    }


def _f1_interval(rows: Mapping[int, ClosedRow], images: Sequence[Hashable]) -> list[float] | None:
    gold = [row.gold for row in rows.values()]
    if not rows or 3 * len(set(gold)) * len(rows) > MOST_COUNTS:
        return None
    counts = label_counts(gold, [row.predicted for row in rows.values()])
    return estimate(sums_by_cluster(counts, [images[place] for place in rows]), macro_f1, SEED).interval


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
