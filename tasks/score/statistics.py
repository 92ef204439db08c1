"""Uncertainty of the scores of one training: bootstrap intervals over images, and McNemar's test of two models.

Questions about one image are not independent. The bootstrap therefore draws images, each with all its questions. Every
figure here is a function of sums over questions, so a resample is a weighting of the images' sums: one matrix product.

The interval is the expanded percentile interval (Hesterberg, "What Teachers Should Know about the Bootstrap", The
American Statistician 69, 2015): the plain percentile interval is too narrow where images are few. Where every answer
scores the same, the interval has no width, whatever the number of images.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SEED = 0
"""Seed of every resampling without another seed: the same rows give the same intervals."""
RESAMPLES = 1000
CONFIDENCE = 0.95
BATCH = 2**22
"""Largest number of weights in memory at once."""

Label = TypeVar("Label", str, int)
Statistic = Callable[[np.ndarray], np.ndarray]
"""A statistic of sums: (R, M) to (R,), one figure for each row of sums."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float | None
    """None, like `high`, where there are fewer than two images: no interval can be estimated."""
    high: float | None

    @property
    def interval(self) -> list[float] | None:
        """Both ends as a list for JSON; None where there is no interval."""
        return None if self.low is None or self.high is None else [self.low, self.high]


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of the right and wrong answers of two configurations."""

    only_a: int
    """Number of questions that only a answered rightly."""
    only_b: int
    p: float
    """Exact and two-sided; 1 where the two never differ."""


def bootstrap_interval(values: Sequence[float], clusters: Sequence[Hashable], seed: int) -> Estimate:
    """The mean score with its bootstrap interval.

    Args:
        values: the score of each row.
        clusters: the image of each row.
        seed: seed of the resampling.

    Raises ValueError where there is no row, or the lengths differ.
    """
    return bootstrap_intervals(np.asarray(values, float)[:, None], clusters, seed)[0]


def bootstrap_intervals(values: np.ndarray, clusters: Sequence[Hashable], seed: int) -> list[Estimate]:
    """Like `bootstrap_interval`, for several scores (N, M) of the same N rows, with the same resamples."""
    sums = sums_by_cluster(np.hstack([values, np.ones((len(values), 1))]), clusters)
    means = sums[:, :-1].sum(axis=0) / sums[:, -1].sum()
    if len(sums) < 2:
        return [Estimate(float(value), None, None) for value in means]
    drawn = resampled(sums, seed)
    drawn = drawn[:, :-1] / drawn[:, -1:]
    return [Estimate(float(value), *_percentiles(each, len(sums))) for value, each in zip(means, drawn.T, strict=True)]


def proportion(count: int, of: int) -> Estimate:
    """A share with its exact interval (Clopper and Pearson, Biometrika 26, 1934); the trials are independent.

    Unlike the bootstrap's, it has a width where nothing or everything was counted. Raises ValueError where `of` is 0.
    """
    from scipy import stats

    low, high = stats.binomtest(count, of).proportion_ci(CONFIDENCE, "exact")
    return Estimate(count / of, float(low), float(high))


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> McNemar:
    """McNemar's exact test (Psychometrika 12, 1947): where only one of a and b is right, are both equally often right?

    The test assumes independent questions. It compares two trained models, not two ways of training; for the latter,
    `tasks.compare.trainings` is safer, as it covers images and seeds. Raises ValueError where the lengths differ.
    """
    from scipy import stats

    pairs = list(zip(map(bool, correct_a), map(bool, correct_b), strict=True))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def estimate(sums: np.ndarray, statistic: Statistic, seed: int) -> Estimate:
    """A statistic with its bootstrap interval, such as a mean, a macro F1 or a share.

    Args:
        sums: (C, M), of M quantities over each of C clusters. Their order makes no difference.
        statistic: computes the figure from the sums over all clusters.
        seed: seed of the resampling.
    """
    value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if len(sums) < 2:
        return Estimate(value, None, None)
    return Estimate(value, *_percentiles(statistic(resampled(sums, seed)), len(sums)))


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean, from a column of sums and a column of counts: (R, 2) to (R,)."""
    return sums[:, 0] / sums[:, 1]


def label_counts(gold: Sequence[Label], predicted: Sequence[Label]) -> np.ndarray:
    """The counts that `macro_f1` needs, for N rows: (N, 3 * L), a block each of right, gold and predicted labels.

    L is the number of labels that occur as references.
    """
    labels = {label: place for place, label in enumerate(sorted(set(gold)))}
    counts = np.zeros((len(gold), 3, len(labels)))
    for row, (reference, prediction) in enumerate(zip(gold, predicted, strict=True)):
        counts[row, 0, labels[reference]] = reference == prediction
        counts[row, 1, labels[reference]] = 1
        if prediction in labels:
            counts[row, 2, labels[prediction]] = 1
    return counts.reshape(len(gold), -1)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Macro F1 over the labels that occur as references: (R, 3 * L) sums of `label_counts` to (R,)."""
    right, gold, predicted = np.split(counts, 3, axis=1)
    f1 = 2 * right / np.maximum(gold + predicted, 1)
    return np.where(gold > 0, f1, 0).sum(axis=1) / np.maximum(np.count_nonzero(gold, axis=1), 1)


def sums_by_cluster(columns: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Sum (N, M) rows over each cluster to (C, M); the order of the C clusters does not depend on that of the rows.

    Raises ValueError where there is no row, or the lengths differ.
    """
    if not len(columns) or len(columns) != len(clusters):
        raise ValueError(f"Expected rows, and a cluster for each; found {len(columns)} and {len(clusters)}.")
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    sums = np.stack([np.bincount(place, weights=column, minlength=len(numbers)) for column in columns.T], axis=1)
    return sums[np.lexsort(sums.T)]


def resampled(sums: np.ndarray, seed: int) -> np.ndarray:
    """Resample (C, M) sums to (RESAMPLES, M): each row sums C clusters, drawn with replacement."""
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
    """The ends of the expanded percentile interval, which uses Student's t in place of the normal distribution."""
    from scipy import stats

    tail = (1 - CONFIDENCE) / 2
    tail = stats.norm.cdf((clusters / (clusters - 1)) ** 0.5 * stats.t.ppf(tail, clusters - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
