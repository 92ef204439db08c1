"""The coordinate-wise median (Yin et al., arXiv 1803.01498)."""

import numpy as np

from tasks.federate.distances import Deltas, Numbers
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings


def median(deltas: Deltas, byzantine: int) -> Numbers:
    """Of each coordinate of `(n, d)`, the median; it lies among the good values where good hospitals are more."""
    return deltas.row(lambda block: np.median(block, axis=0))


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: fewer than half of the hospitals."""
    return Robust(median, majority, settings)
