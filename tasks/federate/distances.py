"""Distances between hospitals' deltas, `(n, d)` in float64, and what is measured with them.

Distances are of differences, not of scalar products: products of long vectors that lie close together cancel.
"""

import numpy as np
from numpy.typing import NDArray

Deltas = NDArray[np.float64]
"""Steps from the round's global tensors, one row for each hospital, all its tensors in one row."""


def squared_distances(deltas: Deltas) -> NDArray[np.float64]:
    """`(n, n)`, squared Euclidean distances between rows."""
    from scipy.spatial.distance import pdist, squareform

    squares: NDArray[np.float64] = squareform(pdist(deltas, "sqeuclidean"))
    return squares


def spread(deltas: Deltas) -> float:
    """How far hospitals lie apart: the median over hospitals of their median distance to all (themselves at 0).

    The scale estimator S_n of Rousseeuw and Croux (1993) without its factor. It does not depend on where the deltas
    lie, and fewer than half of the hospitals cannot make it larger than the distance between two others.
    """
    return float(np.median(np.median(np.sqrt(squared_distances(deltas)), axis=1)))


def mixed(deltas: Deltas, byzantine: int) -> Deltas:
    """Nearest-neighbour mixing (Allouah et al., arXiv 2302.01772): each row becomes the mean of the n - f nearest.

    A row is among its own nearest. So `(n, d)` goes in and `(n, d)` comes out.
    """
    nearest = np.argsort(squared_distances(deltas), axis=1, kind="stable")[:, : len(deltas) - byzantine]
    return np.stack([deltas[chosen].mean(axis=0) for chosen in nearest])
