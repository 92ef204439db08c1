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
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction

import numpy as np

from tasks.cases.small_groups import is_small
from tasks.records import Case, Prediction
from tasks.records.abstention import COLUMNS, KINDS
from tasks.score.outcomes import judge
from tasks.score.statistics import sums_by_cluster


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
