"""The coordinate-wise trimmed mean (Yin et al., arXiv 1803.01498)."""

import numpy as np

from tasks.errors import StudyError
from tasks.federate.distances import Deltas, Numbers
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings


def trimmed_mean(deltas: Deltas, byzantine: int) -> Numbers:
    """Of each coordinate of `(n, d)`, the mean without the f smallest and the f largest values."""
    kept = slice(byzantine, len(deltas) - byzantine)
    return deltas.row(lambda block: np.sort(block, axis=0)[kept].mean(axis=0))


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: fewer than half of the hospitals.

    Raises StudyError for 0, with which nothing is trimmed.
    """
    if not settings.byzantine:
        raise StudyError(
            "Expected federation.byzantine of at least 1 for federation.strategy=trimmed-mean, which takes "
            f"{majority(1)} hospitals, found 0, which trims nothing: raise it, or take federation.strategy=fedavg."
        )
    return Robust(trimmed_mean, majority, settings)
