"""Withholds answers when the model is unsure, at a coverage that the user sets.

The threshold on the model's confidence is a conformal quantile over a hospital's held-out images, whose questions the
model was never trained to answer. Questions about one image are alike, so images are the exchangeable units. Each
image has the same weight, divided among its questions. The new image has the same weight, and nothing is known of it
(Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023; with one question per image this
is split conformal calibration).

If a new image is exchangeable with the held-out ones, a question drawn at random from its questions is answered with a
probability of at least the requested coverage. The same then holds for the share of all questions about new images, if
an image's number of questions is independent of the model's confidence.
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
    """The least confidence at which an answer is given; 0 if there are too few held-out images to withhold any.

    Args:
        confidences: of the answers to held-out cases.
        images: the image of each held-out case.
        coverage: the share of a new image's questions to answer, above 0, at most 1.

    Raises ValueError if the lengths differ.
    """
    questions = Counter(images)
    # Integers and one fraction: a sum of floats may fall just short of the target.
    weight = math.lcm(*questions.values())  # of each image
    wanted = math.ceil(weight * (len(questions) + 1) * Fraction(coverage).limit_denominator(10**9))
    reached = 0
    for confidence, image in sorted(zip(confidences, images, strict=True), key=lambda each: -each[0]):
        reached += weight // questions[image]
        if reached >= wanted:
            return confidence
    return 0.0


def held_out_threshold(held_out: Sequence[Prediction], cases: Iterable[Case], coverage: float) -> float:
    """`conformal_threshold` of a hospital's answers to its held-out cases; `cases` must include these."""
    images = {case.id: case.image_id for case in cases}
    return conformal_threshold(
        [row.confidence or 0.0 for row in held_out], [images[row.case_id] for row in held_out], coverage
    )


def count_answers(predictions: Sequence[Prediction], images: Sequence[str], threshold: float) -> list[list[float]]:
    """Sums per image of the COLUMNS of each kind, `(images, 8)`, in an order that does not identify the images.

    Args:
        predictions: answers of a model, so that each has a confidence.
        images: the image of each prediction.
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
    """Hide the kinds with too few cases, or too few answered or withheld; return the sums, and the hidden kinds.

    A hidden kind's sums are 0, as if the hospital had no case of it. Rows that are all 0 are dropped.
    """
    rows = np.array(images, float).reshape(-1, len(KINDS), len(COLUMNS))
    totals, answered, *_ = rows.sum(axis=0).T.astype(int)
    few = [
        any(is_small(count, least) for count in (n, given, n - given))
        for n, given in zip(totals, answered, strict=True)
    ]
    rows[:, few] = 0
    kept = rows.reshape(-1, len(KINDS) * len(COLUMNS))
    kept = kept[kept.any(axis=1)]
    sums: list[list[float]] = sums_by_cluster(kept, range(len(kept))).tolist() if len(kept) else []
    return sums, [kind for kind, hidden in zip(KINDS, few, strict=True) if hidden]
