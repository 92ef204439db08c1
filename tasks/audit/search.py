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
    exact = faiss.IndexFlatIP(width)
    index: faiss.Index = exact
    if len(rows) > EXACT:
        cells = faiss.IndexIVFFlat(exact, width, len(rows) // CELL, faiss.METRIC_INNER_PRODUCT)
        cells.cp.max_points_per_centroid = 64  # the training looks at a share of the rows
        cells.cp.niter = 10
        cells.train(rows)
        cells.nprobe = PROBES
        index = cells
    index.add(rows)
    return lambda queries, count: index.search(queries, count)
