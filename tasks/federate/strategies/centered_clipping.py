"""Centered clipping (Karimireddy et al., arXiv 2012.10333): a centre moves by the mean of clipped differences to it."""

from functools import partial

import numpy as np

from tasks.federate.distances import Deltas, Numbers, distances_to, spread, squared_distances_and_median, with_median
from tasks.federate.robust import Robust, majority
from tasks.settings import StrategySettings

STEPS = 5
"""Steps of the centre. A bad hospital moves it by at most `multiple * spread / n` in each."""


def centered_clipping(deltas: Deltas, byzantine: int, multiple: float) -> Numbers:
    """The centre of the rows of `(n, d)`; differences are clipped at a multiple of the hospitals' spread.

    The paper begins at its last round's result, which is no longer near where hospitals begin anew from the global
    tensors. Any point near the good hospitals will do: we begin at the coordinate-wise median. The centre is a mean of
    the rows and that median, and known by its weights.
    """
    squared = squared_distances_and_median(deltas)
    bound = multiple * spread(squared[:-1, :-1])
    centre = np.append(np.zeros(len(deltas)), 1.0)
    for _ in range(STEPS):
        norms = distances_to(centre, squared)[:-1]
        scales = np.minimum(1, np.divide(bound, norms, out=np.ones_like(norms), where=norms > 0))
        centre = (1 - scales.mean()) * centre + np.append(scales / len(deltas), 0.0)
    return deltas.row(lambda block: centre @ with_median(block))


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.clip`, and `federation.byzantine` of fewer than half of the hospitals."""
    return Robust(partial(centered_clipping, multiple=settings.clip), majority, settings)
