"""How sure a figure over several trainings is: the chance of training and that of the test images in one interval.

The figure is the mean over the seeds of each seed's own, and seeds and images are both drawn (crossed random effects,
by the method of moments). The variance of the mean has two parts:

- the variance between the seeds' figures, divided by their number: with m seeds it has m - 1 degrees of freedom. Where
  every seed asks about images of its own, this is all of it;
- the mean covariance of two seeds' figures, from the images that both ask about: it moves all seeds alike, so that the
  first part does not show it. Covariances are those of the delete-one-image jackknife.

Each part has a Student's t of its own, and the squares of both margins are added (Banerjee, Sankhya 22, 1960): the
chance of missing the truth is then at most what it is said to be, however the parts are mixed, which Satterthwaite's
approximation does not keep with three seeds. Few seeds can also be alike by chance, so the interval is never narrower
than that over the test images alone, which holds with one seed too, for the trainings as they are. The p value is that
of the widest interval without 0. `benchmarks/level.py` measures how often the test errs.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from tasks.score.statistics import CONFIDENCE, Estimate, Statistic

NOTHING = 1e-12
"""A standard error below it is none: sums of the same numbers in another order are not always the same bits."""
LEAST_P = 1e-100
"""Smaller p values are not told apart."""

Parts = list[tuple[float, float]]
"""Standard errors whose squares add up, each with its degrees of freedom."""


@dataclass(frozen=True)
class OverTrainings(Estimate):
    """The mean of the seeds' figures with its 95 % interval, and the p value that belongs to it."""

    p: float | None
    """Two-sided, of a figure of 0, below 0.05 where the interval leaves 0 out; None where there is no interval, or
    where neither seeds nor images differ and yet the figure is not 0."""
    by_seed: tuple[float, ...]
    """In the order in which the seeds occur."""


def over_trainings(
    columns: np.ndarray, seeds: Sequence[int], images: Sequence[Hashable], statistic: Statistic
) -> OverTrainings:
    """A figure of the rows of several seeds, or of one.

    Args:
        columns: (N, M), what the figure is made of, a row for each answer.
        seeds: of the rows.
        images: of the rows; what two seeds ask about one image has the same here.
        statistic: the figure, of sums over rows.

    There is no interval where a seed asks about fewer than two images. Raises ValueError where there is no row, or the
    lengths differ.
    """
    if not len(columns) or not len(columns) == len(seeds) == len(images):
        raise ValueError(
            f"Expected rows, and a seed and an image for each; found {len(columns)}, {len(seeds)} and {len(images)}."
        )
    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(image, len(numbers)) for image in images])
    found = [
        _of_one_seed(columns[own], places[own], len(numbers), statistic)
        for own in (np.asarray(seeds) == seed for seed in dict.fromkeys(seeds))
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
    """The seed's figure, and how far each of all `count` images moves it, 0 for those that it does not ask about.

    The squares of these sum to the jackknife's variance of the figure; None of fewer than two images.
    """
    asked, own = np.unique(places, return_inverse=True)
    sums = np.stack([np.bincount(own, weights=column, minlength=len(asked)) for column in columns.T], axis=1)
    total = sums.sum(axis=0, keepdims=True)
    value = float(statistic(total)[0])
    if len(asked) < 2:
        return value, None
    without = statistic(total - sums)
    influence = np.zeros(count)
    influence[asked] = (without.mean() - without) * (1 - 1 / len(asked)) ** 0.5
    return value, influence


def _accounts(by_seed: np.ndarray, influences: np.ndarray) -> list[Parts]:
    """What the mean's chance is made of: the images alone; and, of several seeds, the seeds and what these share.

    Args:
        by_seed: (S,), the seeds' figures.
        influences: (S, I), as `_of_one_seed` gives them.
    """
    many, images = influences.shape
    covariances = influences @ influences.T
    found = [[(covariances.mean() ** 0.5, images - 1.0)]]
    if many > 1:
        between = by_seed.var(ddof=1) / many
        shared = max(0.0, (covariances.sum() - covariances.trace()) / (many * (many - 1)))
        found.append([(between**0.5, many - 1.0), (shared**0.5, images - 1.0)])
    return found


def _margin(p: float, accounts: Sequence[Parts]) -> float:
    """Half of the interval that misses with a chance of p: that of the account that makes it widest."""
    return max(math.hypot(*(stdtrit(freedom, p / 2) * error for error, freedom in parts)) for parts in accounts)


def _p(value: float, accounts: Sequence[Parts]) -> float | None:
    """The p whose interval ends at 0."""
    if abs(value) < NOTHING:
        return 1.0
    if max(error for parts in accounts for error, _ in parts) < NOTHING:
        return None
    if _margin(LEAST_P, accounts) <= abs(value):
        return LEAST_P
    return math.exp(brentq(lambda log: _margin(math.exp(log), accounts) - abs(value), math.log(LEAST_P), 0.0))
