"""The geometric median (Pillutla et al., arXiv 1912.13445): the point with the smallest sum of distances to all."""

import numpy as np

from tasks.federate.distances import Deltas, spread
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings

SMOOTHING = 1e-3
"""Distances below this multiple of the hospitals' spread count as this one, so that no weight is infinite."""
PRECISION = 1e-9
"""The search ends where a step is shorter than this multiple of the spread."""
STEPS = 1000


def geometric_median(deltas: Deltas, byzantine: int) -> Deltas:
    """Of the rows of `(n, d)`, by smoothed Weiszfeld steps from the coordinate-wise median."""
    point: Deltas = np.median(deltas, axis=0)
    scale = spread(deltas)
    if scale == 0:  # most hospitals agree
        return point
    for _ in range(STEPS):
        weights = 1 / np.maximum(np.linalg.norm(deltas - point, axis=1), SMOOTHING * scale)
        before, point = point, weights @ deltas / weights.sum()
        if np.linalg.norm(point - before) <= PRECISION * scale:
            break
    return point


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: fewer than half of the hospitals."""
    return Robust(geometric_median, majority, settings)
