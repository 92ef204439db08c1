"""Hospitals' deltas, some columns at a time, and the distances between them.

Distances are of differences, not of scalar products: products of long vectors that lie close together cancel.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Deltas:
    """Steps from the round's global tensors, `(n, d)` in float64: one row for each hospital, all its tensors in it.

    They need not fit in memory: they come as blocks of columns, read anew each time.
    """

    count: int
    """n, the number of hospitals."""
    blocks: Callable[[], Iterator[Numbers]]
    """Reads all columns in their order, as blocks `(n, w)` of any widths."""

    def __len__(self) -> int:
        return self.count

    def each(self, change: Callable[[Numbers], Numbers]) -> "Deltas":
        """Deltas of as many hospitals, with each block `(n, w)` changed to another one."""
        return Deltas(self.count, lambda: map(change, self.blocks()))

    def row(self, make: Callable[[Numbers], Numbers]) -> Numbers:
        """One row `(d,)`, of which each block `(n, w)` makes its part `(w,)`."""
        return np.concatenate([np.array(make(block)) for block in self.blocks()])  # a view would keep its whole block

    def total(self, measure: Callable[[Numbers], Numbers]) -> Numbers:
        """The sum of what each block measures."""
        return sum(map(measure, self.blocks()), np.zeros(()))


def in_memory(rows: Numbers) -> Deltas:
    """Deltas `(n, d)` as one block."""
    return Deltas(len(rows), lambda: iter([rows]))


def squared_distances(deltas: Deltas) -> Numbers:
    """`(n, n)`, squared Euclidean distances between rows."""
    return deltas.total(_between_rows)


def squared_distances_and_median(deltas: Deltas) -> Numbers:
    """`(n + 1, n + 1)`, squared distances between the rows and, as the last one, their coordinate-wise median."""
    return deltas.total(lambda block: _between_rows(with_median(block)))


def with_median(block: Numbers) -> Numbers:
    """`(n + 1, w)`: the rows of a block `(n, w)`, and their coordinate-wise median."""
    return np.vstack([block, np.median(block, axis=0)])


def distances_to(weights: Numbers, squared: Numbers) -> Numbers:
    """`(n,)`, the distances of n points to their mean with weights `(n,)` that sum to 1.

    They follow from the squared distances `(n, n)` between the points, so that no point is read again.
    """
    towards = squared @ weights
    return np.sqrt(np.maximum(towards - weights @ towards / 2, 0))


def spread(squared: Numbers) -> float:
    """How far hospitals lie apart: the median over hospitals of their median distance to all (themselves at 0).

    The scale estimator S_n of Rousseeuw and Croux (1993) without its factor. It does not depend on where the deltas
    lie, and fewer than half of the hospitals cannot make it larger than the distance between two others.

    Args:
        squared: `(n, n)`, squared distances between hospitals.
    """
    return float(np.median(np.median(np.sqrt(squared), axis=1)))


def mixed(deltas: Deltas, byzantine: int) -> Deltas:
    """Nearest-neighbour mixing (Allouah et al., arXiv 2302.01772): each row becomes the mean of the n - f nearest.

    A row is among its own nearest. So `(n, d)` goes in and `(n, d)` comes out.
    """
    nearest = np.argsort(squared_distances(deltas), axis=1, kind="stable")[:, : len(deltas) - byzantine]
    return deltas.each(lambda block: np.stack([block[chosen].mean(axis=0) for chosen in nearest]))


def _between_rows(block: Numbers) -> Numbers:
    from scipy.spatial.distance import pdist, squareform

    squares: Numbers = squareform(pdist(block, "sqeuclidean"))
    return squares
