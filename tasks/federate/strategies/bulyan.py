"""Bulyan (El Mhamdi et al., ICML 2018, arXiv 1802.07927): Krum chooses many; the middle of each coordinate counts."""

import numpy as np

from tasks.federate.distances import Deltas, Numbers, squared_distances
from tasks.federate.robust import Robust
from tasks.federate.strategies.krum import ranking, totals
from tasks.settings import StrategySettings


def bulyan(deltas: Deltas, byzantine: int) -> Numbers:
    """Krum chooses n - 2f rows of `(n, d)`, each from those that are left.

    Of each coordinate, the n - 4f values nearest to the median of the chosen are averaged.
    """
    left, chosen = list(range(len(deltas))), list[int]()
    squared = squared_distances(deltas)
    total = totals(squared)
    for _ in range(len(deltas) - 2 * byzantine):
        best = ranking(squared[np.ix_(left, left)], total[left], byzantine)[0]
        chosen.append(left.pop(int(best)))
    return deltas.row(lambda block: middle_mean(block[chosen], len(deltas) - 4 * byzantine))


def middle_mean(rows: Numbers, count: int) -> Numbers:
    """Of each coordinate of `(m, w)`, the mean of the values nearest to its median, as many as `count`."""
    ordered = np.sort(rows, axis=0)
    away = np.abs(ordered - np.median(ordered, axis=0))
    middle = np.argsort(away, axis=0, kind="stable")[:count]
    mean: Numbers = np.take_along_axis(ordered, middle, axis=0).mean(axis=0)
    return mean


def least(byzantine: int) -> int:
    """The smallest number of hospitals for which the paper's guarantee holds: 4f + 3."""
    return 4 * byzantine + 3


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: n of at least 4f + 3."""
    return Robust(bulyan, least, settings)
