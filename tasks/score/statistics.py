"""How sure a score of one training is: bootstrap intervals over images; and McNemar's test of two.

Questions about one image are not independent, so images are drawn, with all their questions, not questions. Every
figure here is a function of sums over questions, so a resample is a weighting of the images' sums: one matrix product.

The interval is the expanded percentile interval (Hesterberg, "What Teachers Should Know about the Bootstrap", The
American Statistician 69, 2015): the plain one is too narrow where images are few. Where every answer scores the same
it has no width, whatever the number of images.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

SEED = 0
"""Of every resampling whose caller has no other: the same rows give the same intervals."""
RESAMPLES = 1000
CONFIDENCE = 0.95
BATCH = 2**22
"""Most weights in memory at once."""

Label = TypeVar("Label", str, int)
Statistic = Callable[[np.ndarray], np.ndarray]
"""A figure of sums: (R, M) to (R,), one figure for each row of sums."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float | None
    """None, as `high`, where there are fewer than two images: nothing can then be said."""
    high: float | None

    @property
    def interval(self) -> list[float] | None:
        """Both ends, as JSON holds them."""
        return None if self.low is None or self.high is None else [self.low, self.high]


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two configurations' right and wrong answers."""

    only_a: int
    """Questions that a alone answered rightly."""
    only_b: int
    p: float
    """Exact and two-sided; 1 where they never differ."""


def bootstrap_interval(values: Sequence[float], clusters: Sequence[Hashable], seed: int) -> Estimate:
    """The mean of a score with its interval.

    Args:
        values: the score of each row.
        clusters: the image of each row.
        seed: every draw follows from it.

    Raises ValueError where there is no row, or the lengths differ.
    """
    return bootstrap_intervals(np.asarray(values, float)[:, None], clusters, seed)[0]


def bootstrap_intervals(values: np.ndarray, clusters: Sequence[Hashable], seed: int) -> list[Estimate]:
    """As `bootstrap_interval`, of several scores of the same rows, (N, M), by the same draws."""
    sums = sums_by_cluster(np.hstack([values, np.ones((len(values), 1))]), clusters)
    means = sums[:, :-1].sum(axis=0) / sums[:, -1].sum()
    if len(sums) < 2:
        return [Estimate(float(value), None, None) for value in means]
    drawn = resampled(sums, seed)
    drawn = drawn[:, :-1] / drawn[:, -1:]
    return [Estimate(float(value), *_percentiles(each, len(sums))) for value, each in zip(means, drawn.T, strict=True)]


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> McNemar:
    """McNemar's exact test (Psychometrika 12, 1947): of the questions where one alone is right, are half each one's?

    It takes questions for independent, and is of two trained models, not of two ways of training: over images and
    seeds, `tasks.compare.trainings` is the safer judge.
    Raises ValueError where the lengths differ.
    """
    pairs = list(zip(map(bool, correct_a), map(bool, correct_b), strict=True))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def estimate(sums: np.ndarray, statistic: Statistic, seed: int) -> Estimate:
    """A figure of sums with its interval: a mean, a macro F1, a share.

    Args:
        sums: (C, M), of M quantities over each of C clusters. Their order makes no difference.
        statistic: the figure, of the sums over all clusters.
        seed: every draw follows from it.
    """
    value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if len(sums) < 2:
        return Estimate(value, None, None)
    return Estimate(value, *_percentiles(statistic(resampled(sums, seed)), len(sums)))


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean, from sums and counts: (R, 2) to (R,)."""
    return sums[:, 0] / sums[:, 1]


def label_counts(gold: Sequence[Label], predicted: Sequence[Label]) -> np.ndarray:
    """What `macro_f1` is made of, for each of N rows: (N, 3 * L) with a block each of right, gold and predicted labels.

    L labels, those that occur as references.
    """
    labels = {label: place for place, label in enumerate(sorted(set(gold)))}
    counts = np.zeros((len(gold), 3, len(labels)))
    for row, (asked, said) in enumerate(zip(gold, predicted, strict=True)):
        counts[row, 0, labels[asked]] = asked == said
        counts[row, 1, labels[asked]] = 1
        if said in labels:
            counts[row, 2, labels[said]] = 1
    return counts.reshape(len(gold), -1)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Macro F1 over the labels that occur as references: (R, 3 * L) sums of `label_counts` to (R,)."""
    right, gold, predicted = np.split(counts, 3, axis=1)
    f1 = 2 * right / np.maximum(gold + predicted, 1)
    return np.where(gold > 0, f1, 0).sum(axis=1) / np.maximum(np.count_nonzero(gold, axis=1), 1)


def sums_by_cluster(columns: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """(N, M) numbers of rows to (C, M) sums over each cluster, C clusters in no order that depends on the rows'.

    Raises ValueError where there is no row, or the lengths differ.
    """
    if not len(columns) or len(columns) != len(clusters):
        raise ValueError(f"Expected rows, and a cluster for each; found {len(columns)} and {len(clusters)}.")
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    sums = np.stack([np.bincount(place, weights=column, minlength=len(numbers)) for column in columns.T], axis=1)
    return sums[np.lexsort(sums.T)]


def resampled(sums: np.ndarray, seed: int) -> np.ndarray:
    """(C, M) sums to (RESAMPLES, M): the sums over as many clusters, drawn with replacement."""
    random = np.random.default_rng(seed)
    size = len(sums)
    at_once = max(1, BATCH // size)
    drawn = []
    for start in range(0, RESAMPLES, at_once):
        many = min(at_once, RESAMPLES - start)
        chosen = random.integers(size, size=(many, size)) + size * np.arange(many)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=many * size).reshape(many, size)
        drawn.append(weights.astype(float) @ sums)
    return np.concatenate(drawn)


def _percentiles(drawn: np.ndarray, clusters: int) -> tuple[float, float]:
    """The ends of the expanded percentile interval: as far out as Student's t asks for instead of the normal."""
    tail = (1 - CONFIDENCE) / 2
    tail = stats.norm.cdf((clusters / (clusters - 1)) ** 0.5 * stats.t.ppf(tail, clusters - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
