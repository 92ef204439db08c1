"""Nearest rows by inner product, at a cost that grows about linearly."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

EXACT = 20_000
"""Rows up to which all are compared: exact, and quicker than any index."""
CELL = 256
"""Rows in a cell of the inverted file beyond that."""
PROBES = 8
"""Cells that are searched for each row."""


def searcher(rows: Vectors) -> Callable[[Vectors, int], tuple[Vectors, NDArray[np.int64]]]:
    """A search among unit rows `(n, d)`: of queries `(nq, d)` the inner products and positions `(nq, k)`.

    Nearest first; -1 where fewer were found.
    """
    import faiss

    width = rows.shape[1]
    index = faiss.IndexFlatIP(width)
    if len(rows) > EXACT:
        index = faiss.IndexIVFFlat(index, width, len(rows) // CELL, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64  # bounds the training, whose cost would grow with the square
        index.cp.niter = 10
        index.train(rows)
        index.nprobe = PROBES
    index.add(rows)
    return lambda queries, count: index.search(queries, count)
