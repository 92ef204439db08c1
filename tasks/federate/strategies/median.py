"""The coordinate-wise median (Yin et al., arXiv 1803.01498)."""

import numpy as np

from tasks.federate.distances import Deltas
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings


def median(deltas: Deltas, byzantine: int) -> Deltas:
    """Of each coordinate of `(n, d)`, the median; it lies among the good values where good hospitals are more."""
    found: Deltas = np.median(deltas, axis=0)
    return found


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: fewer than half of the hospitals."""
    return Robust(median, majority, settings)
