"""Reliability bins and the expected calibration error: is a model right as often as its confidence says?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.cases.small_groups import is_small

BINS = 10
"""Number of bins, of equal width, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose confidence lies in one bin: counts and sums, which may be added up over hospitals."""

    n: int
    confidence: float
    """Sum of the confidences, each from 0 to 1."""
    correct: float
    """Number of right answers, or the sum of their scores."""

    def __add__(self, other: "Bin") -> "Bin":
        return Bin(self.n + other.n, self.confidence + other.confidence, self.correct + other.correct)


EMPTY = Bin(0, 0.0, 0.0)


def reliability_bins(confidence: Sequence[float], correct: Sequence[float]) -> list[Bin]:
    """Sort answers into `BINS` bins by confidence, lowest first; a confidence of 1 falls into the last bin.

    Args:
        confidence: of each answer, from 0 to 1.
        correct: score of each answer, from 0 to 1.

    Raises ValueError where the lengths differ, or a confidence is not from 0 to 1.
    """
    sure, right = np.asarray(confidence, float), np.asarray(correct, float)
    if len(sure) != len(right) or not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError(f"Expected a confidence from 0 to 1 for each of {len(right)} answers, found {len(sure)}.")
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts, *sums = (np.bincount(place, weights=each, minlength=BINS) for each in (np.ones(len(sure)), sure, right))
    return [Bin(int(n), float(s), float(r)) for n, s, r in zip(counts, *sums, strict=True)]


def pool_bins(each: Iterable[Sequence[Bin]]) -> list[Bin]:
    """Add up the bins of several hospitals."""
    total = [EMPTY] * BINS
    for bins in each:
        total = [one + other for one, other in zip(total, bins, strict=True)]
    return total


def merge_small(bins: Sequence[Bin], least: int) -> list[Bin]:
    """Merge each bin of fewer than `least` answers into the next bin above.

    The last bin is merged into the next non-empty bin below. Where there are too few answers in all, every bin is
    empty.
    """
    merged = list(bins)
    for place in range(BINS - 1):
        if is_small(merged[place].n, least):
            merged[place + 1], merged[place] = merged[place] + merged[place + 1], EMPTY
    if is_small(merged[-1].n, least):
        below = next((place for place in reversed(range(BINS - 1)) if merged[place].n), None)
        if below is not None:
            merged[below] += merged[-1]
        merged[-1] = EMPTY
    return merged


def expected_calibration_error(bins: Sequence[Bin]) -> float | None:
    """Mean absolute difference of confidence and accuracy, weighted by the size of the bins; None without answers.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    n = sum(each.n for each in bins)
    return sum(abs(each.confidence - each.correct) for each in bins) / n if n else None
