"""Answers withheld where the model is unsure, at a coverage that the user sets.

The threshold on the model's confidence is a conformal quantile over a hospital's own held-out images, which training
never answered questions about. Questions about one image are alike, so images are what is exchangeable: each has the
same weight, shared by its questions, and so has the new image, of which nothing is known (Lee, Barber and Willett,
"Distribution-free inference with hierarchical data", 2023; with one question an image it is split conformal
calibration). Where a new image is exchangeable with the held-out ones, any of its questions, drawn at random, is
answered with a probability of at least the coverage asked. It follows that of all questions about new images that
share is answered where their number says nothing of how sure the model is of them.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tasks.evaluate.outcomes import judge
from tasks.evaluate.statistics import Estimate, Statistic, estimate, mean, sums_by_cluster
from tasks.records import Case, Prediction
from tasks.withheld import is_small

KINDS = ("closed", "open")
COLUMNS = ("n", "answered", "right", "right_if_all_were_answered")
"""Counted of each kind of question, over each image."""


def conformal_threshold(confidences: Sequence[float], images: Sequence[Hashable], coverage: float) -> float:
    """The confidence from which on an answer is given; 0 where the held-out images are too few to withhold any.

    Args:
        confidences: of the answers to held-out cases.
        images: of the held-out cases.
        coverage: the share of a new image's answers wanted, above 0, at most 1.

    Raises ValueError where the lengths differ.
    """
    questions = Counter(images)
    # Whole numbers and one fraction: a sum of floats may miss what it just reaches.
    weight = math.lcm(*questions.values())  # of each image
    wanted = math.ceil(weight * (len(questions) + 1) * Fraction(coverage).limit_denominator(10**9))
    reached = 0
    for confidence, image in sorted(zip(confidences, images, strict=True), key=lambda each: -each[0]):
        reached += weight // questions[image]
        if reached >= wanted:
            return confidence
    return 0.0


def held_out_threshold(held_out: Sequence[Prediction], cases: Iterable[Case], coverage: float) -> float:
    """As `conformal_threshold`, of a hospital's answers to its held-out cases, which are among `cases`."""
    images = {case.id: case.image_id for case in cases}
    return conformal_threshold(
        [row.confidence or 0.0 for row in held_out], [images[row.case_id] for row in held_out], coverage
    )


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


def abstention(shared: Sequence[Mapping[str, Any]], coverage: float, seed: int, retrieves: bool) -> dict[str, Any]:
    """What `results.json` says of withheld answers.

    Args:
        shared: each hospital's `abstention.json`.
        coverage: as asked.
        seed: of the intervals, 95 % bootstrap over images.
        retrieves: whether cases are shown with questions; those held out were then shown in training.
    """
    hospitals = {each["hospital"]: np.array(each["images"], float).reshape(-1, 8) for each in shared}
    return {
        "coverage_asked": coverage,
        "held_out_cases": {each["hospital"]: each["held_out_cases"] for each in shared},
        "held_out_images": {each["hospital"]: each["held_out_images"] for each in shared},
        "held_out_shown_in_training": retrieves,
        **_figures(np.concatenate(list(hospitals.values())), seed),
        "hospitals": {hospital: _figures(sums, seed) for hospital, sums in hospitals.items()},
    }


def _figures(sums: np.ndarray, seed: int) -> dict[str, Any]:
    """Of sums over images, `(C, 8)`: coverage and abstention rate, and the accuracy of each kind of question.

    `image_coverage`, the mean over images of the share of their questions that is answered, is what is promised.
    """
    at = {(kind, column): n for n, (kind, column) in enumerate((kind, column) for kind in KINDS for column in COLUMNS)}
    everything = [at[kind, "n"] for kind in KINDS]
    covered = _told(sums, _share([at[kind, "answered"] for kind in KINDS], everything), everything, seed)
    asked, given_of = sums[:, everything].sum(axis=1), sums[:, [at[kind, "answered"] for kind in KINDS]].sum(axis=1)
    shares = np.column_stack([given_of / np.maximum(asked, 1), asked > 0])
    by_image = _told(shares, mean, [1], seed)
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
    got = {"image_coverage": by_image, "coverage": covered, "abstention_rate": rate}
    return {"n": int(sums[:, everything].sum()), **got, **kinds}


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
    got = ("coverage asked", "got, of an image", "of all", "withheld")
    headings = ("", "n", *got, "closed, answered", "all", "open exact, answered", "all")
    rows = [("all hospitals", found), *found["hospitals"].items()]
    return [headings, *((name, *_cells(row, found["coverage_asked"])) for name, row in rows)]


def abstention_note(found: Mapping[str, Any]) -> str:
    """What the `abstention` of `results.json` promises, and what stands against it."""
    note = (
        "Where a new image is like the held-out ones, its questions are answered with at least the probability asked, "
        "on average over images."
    )
    if found.get("held_out_shown_in_training"):
        note += (
            " The held-out cases were not trained on, but shown as retrieved cases in training, their answers with "
            "them: the model may be surer of them than of new ones, and answer fewer of these than promised."
        )
    return note


def _cells(row: Mapping[str, Any], asked: float) -> tuple[str, ...]:
    rate = row["abstention_rate"]
    scores = [_cell(row[kind][name]) for kind in KINDS for name in ("accuracy", "accuracy_if_all_were_answered")]
    got = (_cell(row.get("image_coverage")), _cell(row["coverage"]))
    return (str(row["n"]), f"{asked:g}", *got, "-" if rate is None else f"{rate:.3f}", *scores)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
