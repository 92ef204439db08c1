"""Nearest-neighbour search by inner product, at a cost that grows about linearly."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

EXACT = 20_000
"""Largest number of rows with exhaustive search, which is exact, and faster than any index up to there."""
CELL = 256
"""Rows for each cell of the inverted file, beyond EXACT."""
PROBES = 8
"""Number of cells that are searched for each query."""


def searcher(rows: Vectors) -> Callable[[Vectors, int], tuple[Vectors, NDArray[np.int64]]]:
    """Build a search among unit rows `(n, d)`: queries `(nq, d)` give inner products and positions `(nq, k)`.

    Nearest first; the position is -1 where fewer were found.
    """
    import faiss

    width = rows.shape[1]
    exact = faiss.IndexFlatIP(width)
    index: faiss.Index = exact
    if len(rows) > EXACT:
        cells = faiss.IndexIVFFlat(exact, width, len(rows) // CELL, faiss.METRIC_INNER_PRODUCT)
        cells.cp.max_points_per_centroid = 64  # the training uses a share of the rows
        cells.cp.niter = 10
        cells.train(rows)
        cells.nprobe = PROBES
        index = cells
    index.add(rows)
    return lambda queries, count: index.search(queries, count)
