"""Krum (Blanchard et al., NeurIPS 2017, arXiv 1703.02757): the one delta that lies nearest to its neighbours."""

import numpy as np
from numpy.typing import NDArray

from tasks.federate.distances import Deltas, Numbers, squared_distances
from tasks.federate.robust import Robust
from tasks.settings import StrategySettings


def krum(deltas: Deltas, byzantine: int) -> Numbers:
    """The row of `(n, d)` with the lowest score."""
    squared = squared_distances(deltas)
    chosen = ranking(squared, totals(squared), byzantine)[0]
    return deltas.row(lambda block: block[chosen])


def ranking(squared: Numbers, total: Numbers, byzantine: int) -> NDArray[np.intp]:
    """Rows in the order of their scores: the sum of the n - f - 2 smallest squared distances to others, or of one.

    With one distance, the two nearest rows have equal scores. Of such, the more central one comes first, so that the
    order of hospitals does not matter.

    Args:
        squared: `(n, n)`, squared distances between rows.
        total: `(n,)`, as `totals` gives them, of these rows.
        byzantine: f.
    """
    nearest = np.sort(squared, axis=1)[:, 1 : max(len(squared) - byzantine - 2, 1) + 1]
    return np.lexsort((total, nearest.sum(axis=1)))


def totals(squared: Numbers) -> Numbers:
    """`(n,)`, each row's sum of squared distances to all."""
    found: Numbers = np.sort(squared, axis=1).sum(axis=1)
    return found


def least(byzantine: int) -> int:
    """The smallest number of hospitals for which the paper's guarantee holds: 2f + 3."""
    return 2 * byzantine + 3


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: n of at least 2f + 3."""
    return Robust(krum, least, settings)
