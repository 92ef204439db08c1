"""Multi-Krum (Blanchard et al., NeurIPS 2017, arXiv 1703.02757): the mean of the deltas with the best Krum scores."""

from tasks.federate.distances import Deltas, Numbers, squared_distances
from tasks.federate.robust import Robust
from tasks.federate.strategies.krum import least, ranking, totals
from tasks.settings import StrategySettings


def multi_krum(deltas: Deltas, byzantine: int) -> Numbers:
    """The mean of the n - f rows of `(n, d)` with the lowest scores."""
    squared = squared_distances(deltas)
    best = ranking(squared, totals(squared), byzantine)[: len(deltas) - byzantine]
    return deltas.row(lambda block: block[best].mean(axis=0))


def strategy(settings: StrategySettings) -> Robust:
    """With `federation.byzantine`: n of at least 2f + 3."""
    return Robust(multi_krum, least, settings)
