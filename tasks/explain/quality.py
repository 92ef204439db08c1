"""Measures of a saliency map's quality: against the finding's mask, against the answer's probability, and other maps.

A map is `(rows, columns)`, the weights of the cells of a grid over an image. `covered`, of the same shape, is the share
of each cell that the finding's mask covers (`maps.coverage`). Ties never depend on the cells' positions: tied cells
count equally, or are ordered at random. So an even map scores what random guessing scores: the level of chance.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Cells = NDArray[np.float64]
"""`(rows, columns)`."""


def pointing(weights: Cells, covered: Cells) -> float:
    """The pointing game (Zhang et al., arXiv 1608.00507): 1 if the heaviest cell touches the finding, else 0.

    If several cells are heaviest, the share of them that touches it. Raises ValueError if the shapes differ.
    """
    _check(weights, covered)
    return float((covered[weights == weights.max()] > 0).mean())


def overlap(weights: Cells, covered: Cells) -> float:
    """Intersection over union of the map's top cells and the mask, by area; coarse cells keep it below 1.

    The number of top cells is the mask's area in cells, rounded, at least one. Cells tied for the last places count in
    part. Raises ValueError if the shapes differ.
    """
    _check(weights, covered)
    area = covered.sum()
    chosen = _top(weights.ravel(), max(1, round(area)))
    inside = float(chosen @ covered.ravel())
    return inside / float(chosen.sum() + area - inside)


def _top(weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """For each cell, 1 if it is among the `count` heaviest, else 0; cells tied for the last places get a fraction."""
    least = np.sort(weights)[-count]
    above, level = weights > least, weights == least
    return above + level * (count - above.sum()) / level.sum()


def ranked(weights: Cells, rng: np.random.Generator) -> list[int]:
    """Indices of the cells (numbered row by row), heaviest first, ties in random order."""
    mixed = rng.permutation(weights.size)
    return mixed[np.argsort(-weights.ravel()[mixed], kind="stable")].tolist()


def milestones(cells: int, steps: int) -> list[int]:
    """How many cells are covered at each point of a curve, from none to all, in at most `steps` even steps."""
    return np.linspace(0, cells, min(cells, steps) + 1).round().astype(int).tolist()


def area_under(curve: Sequence[float], counts: Sequence[int]) -> float:
    """The area under a curve over the share of cells, by the trapezoidal rule (RISE, arXiv 1806.07421).

    Args:
        curve: the answer's probability at each point.
        counts: the number of cells at each point, from none to all (`milestones`).
    """
    return float(np.trapezoid(curve, np.asarray(counts, float) / counts[-1]))


def rank_correlation(one: Cells, other: Cells) -> float | None:
    """Spearman's correlation of two maps' weights, from -1 to 1; None if one of them is even, so has no ranks.

    Raises ValueError if the shapes differ.
    """
    _check(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one.ravel(), other.ravel()).statistic)


def _check(one: Cells, other: Cells) -> None:
    if one.shape != other.shape or not one.size:
        raise ValueError(f"Expected two grids of one shape with at least one cell, found {one.shape}, {other.shape}.")
