"""Intervals of a figure over several trainings: they cover the randomness of training and of the test images.

The figure is the mean of the seeds' figures. Seeds and images are both treated as random (crossed random effects, by
the method of moments). The variance of the mean has two parts:

- the variance between the seeds' figures, divided by their number: with m seeds it has m - 1 degrees of freedom. Where
  every seed has its own images, this is all of it;
- the mean covariance of two seeds' figures, from the images that both have questions about. It moves all seeds in the
  same direction, so the first part does not include it. Covariances are those of the delete-one-image jackknife.

Each part has its own Student's t, and the squares of both margins are added (Banerjee, Sankhya 22, 1960). The
probability of missing the true value is then at most the stated one, for any mixture of the parts; Satterthwaite's
approximation does not guarantee this with three seeds. A few seeds can also agree by chance. The interval is therefore
never narrower than the interval over the test images alone, which treats the trainings as given and also holds for one
seed. The p value belongs to the widest interval without 0. `benchmarks/level.py` measures how often the test errs.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from tasks.score.statistics import CONFIDENCE, Estimate, Statistic

NOTHING = 1e-12
"""A standard error below this counts as 0: sums of the same numbers in another order may differ in their last bits."""
LEAST_P = 1e-100
"""Lower bound of reported p values."""

Parts = list[tuple[float, float]]
"""Standard errors whose squares add up, each with its degrees of freedom."""


@dataclass(frozen=True)
class OverTrainings(Estimate):
    """The mean of the seeds' figures with its 95 % interval, and the p value that belongs to it."""

    p: float | None
    """Two-sided, for the hypothesis that the figure is 0; below 0.05 where the interval excludes 0. None where there is
    no interval, or where the figure is not 0 although neither seeds nor images differ."""
    by_seed: tuple[float, ...]
    """One figure for each seed, in the order in which the seeds occur."""


def over_trainings(
    columns: np.ndarray, seeds: Sequence[int], images: Sequence[Hashable], statistic: Statistic
) -> OverTrainings:
    """Compute a figure over the rows of one or several seeds.

    Args:
        columns: (N, M), the numbers whose sums give the figure, a row for each of N answers.
        seeds: the seed of each row.
        images: the image of each row; two seeds with a question on one image have the same value here.
        statistic: computes the figure from sums over rows.

    There is no interval where a seed has fewer than two images. Raises ValueError where there is no row, or the lengths
    differ.
    """
    if not len(columns) or not len(columns) == len(seeds) == len(images):
        raise ValueError(
            f"Expected rows, and a seed and an image for each; found {len(columns)}, {len(seeds)} and {len(images)}."
        )
    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(image, len(numbers)) for image in images])
    found = [
        _of_one_seed(columns[of_seed], places[of_seed], len(numbers), statistic)
        for of_seed in (np.asarray(seeds) == seed for seed in dict.fromkeys(seeds))
    ]
    by_seed = tuple(value for value, _ in found)
    value = float(np.mean(by_seed))
    influences = [influence for _, influence in found if influence is not None]
    if len(influences) < len(found):
        return OverTrainings(value, None, None, None, by_seed)
    accounts = _accounts(np.array(by_seed), np.stack(influences))
    margin = _margin(1 - CONFIDENCE, accounts)
    return OverTrainings(value, value - margin, value + margin, _p(value, accounts), by_seed)


def _of_one_seed(
    columns: np.ndarray, places: np.ndarray, count: int, statistic: Statistic
) -> tuple[float, np.ndarray | None]:
    """The seed's figure, and the influence on it of each of all `count` images; images without a question have 0.

    The squares of the influences sum to the jackknife variance of the figure. None where there are fewer than two
    images.
    """
    present, positions = np.unique(places, return_inverse=True)
    sums = np.stack([np.bincount(positions, weights=column, minlength=len(present)) for column in columns.T], axis=1)
    total = sums.sum(axis=0, keepdims=True)
    value = float(statistic(total)[0])
    if len(present) < 2:
        return value, None
    without = statistic(total - sums)
    influence = np.zeros(count)
    influence[present] = (without.mean() - without) * (1 - 1 / len(present)) ** 0.5
    return value, influence


def _accounts(by_seed: np.ndarray, influences: np.ndarray) -> list[Parts]:
    """The variance models of the mean: the images alone; and, with several seeds, the seeds plus their shared images.

    Args:
        by_seed: (S,), the seeds' figures.
        influences: (S, I), as `_of_one_seed` returns them.
    """
    many, images = influences.shape
    covariances = influences @ influences.T
    # Not from the mean covariance: where the seeds' influences cancel, rounding may leave that below 0.
    found = [[(float(np.linalg.norm(influences.mean(axis=0))), images - 1.0)]]
    if many > 1:
        between = by_seed.var(ddof=1) / many
        shared = max(0.0, (covariances.sum() - covariances.trace()) / (many * (many - 1)))
        found.append([(between**0.5, many - 1.0), (shared**0.5, images - 1.0)])
    return found


def _margin(p: float, accounts: Sequence[Parts]) -> float:
    """Half the width of the interval that misses with probability p: the widest one over the models."""
    return max(math.hypot(*(stdtrit(freedom, p / 2) * error for error, freedom in parts)) for parts in accounts)


def _p(value: float, accounts: Sequence[Parts]) -> float | None:
    """The p value at which the interval ends at 0."""
    if abs(value) < NOTHING:
        return 1.0
    if max(error for parts in accounts for error, _ in parts) < NOTHING:
        return None
    if _margin(LEAST_P, accounts) <= abs(value):
        return LEAST_P
    return math.exp(brentq(lambda log: _margin(math.exp(log), accounts) - abs(value), math.log(LEAST_P), 0.0))
