"""The norm-bounded mean (Sun et al., arXiv 1911.07963): longer deltas are scaled down before the mean."""

from functools import partial

import numpy as np

from tasks.federate.distances import Deltas, Numbers
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings


def norm_bounded(deltas: Deltas, byzantine: int, multiple: float) -> Numbers:
    """The mean of the rows of `(n, d)`, none longer than a multiple of their median norm."""
    norms = np.sqrt(deltas.total(lambda block: np.square(block).sum(axis=1)))
    bound = multiple * np.median(norms)
    scales = np.minimum(1, np.divide(bound, norms, out=np.ones_like(norms), where=norms > 0))
    return deltas.row(lambda block: (scales[:, None] * block).mean(axis=0))


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.clip`, and `federation.byzantine` of fewer than half of the hospitals."""
    return Robust(partial(norm_bounded, multiple=settings.clip), majority, settings)
