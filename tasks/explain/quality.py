"""Whether a saliency map deserves its name: against where the finding is, what the answer depends on, and other maps.

A map is `(rows, columns)`, weights of the cells of a grid over an image; `covered`, of the same shape, is the share of
each cell that the finding's mask covers (`saliency.coverage`). Cells of the same weight are never told apart by their
place: each counts as likely as the others. So an even map scores what a blind guess would, and that is the level of
chance.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Cells = NDArray[np.float64]
"""`(rows, columns)`."""


def pointing(weights: Cells, covered: Cells) -> float:
    """The pointing game (Zhang et al., arXiv 1608.00507): 1 where the heaviest cell touches the finding, else 0.

    Of several heaviest cells it is the share that touches it. Raises ValueError where the shapes differ.
    """
    _check(weights, covered)
    return float((covered[weights == weights.max()] > 0).mean())


def overlap(weights: Cells, covered: Cells) -> float:
    """Intersection over union of the map's top cells and the mask, in areas; coarse cells keep it below 1.

    The threshold follows from the mask alone: as many top cells as the mask has area, rounded, at least one. Where
    the last of them weigh the same, each counts in part. Raises ValueError where the shapes differ.
    """
    _check(weights, covered)
    area = covered.sum()
    chosen = _top(weights.ravel(), max(1, round(area)))
    inside = float(chosen @ covered.ravel())
    return inside / float(chosen.sum() + area - inside)


def _top(weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """By cell, how far it belongs to that many heaviest: 1, 0, or a part where more weigh the same than are wanted."""
    least = np.sort(weights)[-count]
    above, level = weights > least, weights == least
    return above + level * (count - above.sum()) / level.sum()


def ranked(weights: Cells, rng: np.random.Generator) -> list[int]:
    """The cells, row by row, the heaviest first; those that weigh the same in random order."""
    mixed = rng.permutation(weights.size)
    return mixed[np.argsort(-weights.ravel()[mixed], kind="stable")].tolist()


def milestones(cells: int, steps: int) -> list[int]:
    """How many cells are covered at each point of a curve, from none to all, in at most so many even steps."""
    return np.linspace(0, cells, min(cells, steps) + 1).round().astype(int).tolist()


def area_under(curve: Sequence[float], counts: Sequence[int]) -> float:
    """The mean height of a curve over the share of cells, by the trapezoidal rule (RISE, Petsiuk et al., 1806.07421).

    Args:
        curve: the answer's probability at each point.
        counts: the number of cells at each point, from none to all (`milestones`).
    """
    return float(np.trapezoid(curve, np.asarray(counts, float) / counts[-1]))


def rank_correlation(one: Cells, other: Cells) -> float | None:
    """Spearman's correlation of two maps' weights, from -1 to 1; None where one of them is even, which has no ranks.

    Raises ValueError where the shapes differ.
    """
    _check(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one.ravel(), other.ravel()).statistic)


def _check(one: Cells, other: Cells) -> None:
    if one.shape != other.shape or not one.size:
        raise ValueError(f"Expected two grids of one shape with at least one cell, found {one.shape}, {other.shape}.")
