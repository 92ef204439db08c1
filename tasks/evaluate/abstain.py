"""Answers withheld where the model is unsure, at a coverage that the user sets.

The threshold on the model's confidence is a split conformal quantile (Angelopoulos & Bates, "A Gentle Introduction to
Conformal Prediction", 2021, section 1) over a hospital's own held-out cases, which training never answered. Where a
new case is exchangeable with these, it is answered with a probability of at least the coverage asked, and of at most
1 / (n + 1) more where no two confidences are equal.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.evaluate.outcomes import judge
from tasks.evaluate.statistics import Estimate, Statistic, estimate, sums_by_cluster
from tasks.records import Prediction
from tasks.withheld import is_small

KINDS = ("closed", "open")
COLUMNS = ("n", "answered", "right", "right_if_all_were_answered")
"""Counted of each kind of question, over each image."""


def conformal_threshold(confidences: Sequence[float], coverage: float) -> float:
    """The confidence from which on an answer is given; 0 where the held-out cases are too few to withhold any.

    Args:
        confidences: of the answers to `n` held-out cases.
        coverage: the share of answers wanted, above 0, at most 1.
    """
    # 1 - confidence is the nonconformity score, its ceil((n + 1) * coverage)-th smallest the quantile.
    place = math.ceil(round((len(confidences) + 1) * coverage, 9))
    return sorted(confidences, reverse=True)[place - 1] if place <= len(confidences) else 0.0


def count_answers(predictions: Sequence[Prediction], images: Sequence[str], threshold: float) -> list[list[float]]:
    """Sums over each image of each kind's COLUMNS, in no order that tells which image it was: `(C, 8)`.

    Args:
        predictions: of a model, so that each has a confidence.
        images: of the predictions.
        threshold: confidence below which an answer is withheld.
    """
    if not predictions:
        return []
    rows = np.zeros((len(predictions), len(KINDS), len(COLUMNS)))
    for place, each in enumerate(predictions):
        right = judge(each).correct
        given = each.confidence is not None and each.confidence >= threshold
        rows[place, KINDS.index(each.kind)] = (1, given, given and right, right)
    sums: list[list[float]] = sums_by_cluster(rows.reshape(len(rows), -1), images).tolist()
    return sums


def hide_few(images: Sequence[Sequence[float]], least: int) -> tuple[list[list[float]], list[str]]:
    """The sums over images without the kinds of which few cases are asked, answered or withheld; and these kinds.

    Such a kind's sums are 0, as if the hospital had no case of it; what is 0 throughout has no row.
    """
    rows = np.array(images, float).reshape(-1, len(KINDS), len(COLUMNS))
    asked, answered, *_ = rows.sum(axis=0).T.astype(int)
    few = [
        any(is_small(count, least) for count in (n, given, n - given)) for n, given in zip(asked, answered, strict=True)
    ]
    rows[:, few] = 0
    kept = rows.reshape(-1, len(KINDS) * len(COLUMNS))
    kept = kept[kept.any(axis=1)]
    told: list[list[float]] = sums_by_cluster(kept, range(len(kept))).tolist() if len(kept) else []
    return told, [kind for kind, hidden in zip(KINDS, few, strict=True) if hidden]


def abstention(shared: Sequence[Mapping[str, Any]], coverage: float, seed: int) -> dict[str, Any]:
    """What `results.json` says of withheld answers.

    Args:
        shared: each hospital's `abstention.json`.
        coverage: as asked.
        seed: of the intervals, 95 % bootstrap over images.
    """
    hospitals = {each["hospital"]: np.array(each["images"], float).reshape(-1, 8) for each in shared}
    return {
        "coverage_asked": coverage,
        "held_out_cases": {each["hospital"]: each["held_out_cases"] for each in shared},
        **_figures(np.concatenate(list(hospitals.values())), seed),
        "hospitals": {hospital: _figures(sums, seed) for hospital, sums in hospitals.items()},
    }


def _figures(sums: np.ndarray, seed: int) -> dict[str, Any]:
    """Of sums over images, `(C, 8)`: coverage and abstention rate, and the accuracy of each kind of question."""
    at = {(kind, column): n for n, (kind, column) in enumerate((kind, column) for kind in KINDS for column in COLUMNS)}
    everything = [at[kind, "n"] for kind in KINDS]
    covered = _told(sums, _share([at[kind, "answered"] for kind in KINDS], everything), everything, seed)
    kinds = {}
    for kind in KINDS:
        n, answered = (int(sums[:, at[kind, column]].sum()) for column in ("n", "answered"))
        given, all_of_it = [at[kind, "answered"]], [at[kind, "n"]]
        kinds[kind] = {
            "n": n,
            "answered": answered,
            "accuracy": _told(sums, _share([at[kind, "right"]], given), given, seed),
            "accuracy_if_all_were_answered": _told(
                sums, _share([at[kind, "right_if_all_were_answered"]], all_of_it), all_of_it, seed
            ),
        }
    rate = None if covered is None else 1 - covered["value"]
    return {"n": int(sums[:, everything].sum()), "coverage": covered, "abstention_rate": rate, **kinds}


def _share(part: list[int], whole: list[int]) -> Statistic:
    # A resample without any counts as 0: where answers are so few, the interval is wide anyway.
    return lambda sums: sums[:, part].sum(axis=1) / np.maximum(sums[:, whole].sum(axis=1), 1)


def _told(sums: np.ndarray, statistic: Statistic, whole: list[int], seed: int) -> dict[str, Any] | None:
    if not sums[:, whole].sum():
        return None
    found: Estimate = estimate(sums, statistic, seed)
    return {"value": found.value, "interval": found.interval}


def abstention_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The `abstention` of `results.json` as text: headings, then the hospitals together and one by one."""
    headings = ("", "n", "coverage asked", "got", "withheld", "closed, answered", "all", "open exact, answered", "all")
    rows = [("all hospitals", found), *found["hospitals"].items()]
    return [headings, *((name, *_cells(row, found["coverage_asked"])) for name, row in rows)]


def _cells(row: Mapping[str, Any], asked: float) -> tuple[str, ...]:
    rate = row["abstention_rate"]
    scores = [_cell(row[kind][name]) for kind in KINDS for name in ("accuracy", "accuracy_if_all_were_answered")]
    return (str(row["n"]), f"{asked:g}", _cell(row["coverage"]), "-" if rate is None else f"{rate:.3f}", *scores)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
