"""The geometric median (Pillutla et al., arXiv 1912.13445): the point with the smallest sum of distances to all."""

import numpy as np

from tasks.federate.distances import Deltas, Numbers, distances_to, spread, squared_distances_and_median, with_median
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings

SMOOTHING = 1e-3
"""Distances below this multiple of the hospitals' spread count as this one, so that no weight is infinite."""
PRECISION = 1e-9
"""The search ends where a step is shorter than this multiple of the spread."""
STEPS = 1000


def geometric_median(deltas: Deltas, byzantine: int) -> Numbers:
    """Of the rows of `(n, d)`, by smoothed Weiszfeld steps from the coordinate-wise median.

    Each point on the way is a mean of the rows and that median, and known by its weights.
    """
    squared = squared_distances_and_median(deltas)
    scale = spread(squared[:-1, :-1])
    weights = np.append(np.zeros(len(deltas)), 1.0)
    for _ in range(STEPS if scale else 0):  # at 0, most hospitals agree
        pulls = 1 / np.maximum(distances_to(weights, squared)[:-1], SMOOTHING * scale)
        before, weights = weights, np.append(pulls / pulls.sum(), 0.0)
        change = weights - before
        if np.sqrt(max(-change @ squared @ change / 2, 0)) <= PRECISION * scale:
            break
    return deltas.row(lambda block: weights @ with_median(block))


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: fewer than half of the hospitals."""
    return Robust(geometric_median, majority, settings)
