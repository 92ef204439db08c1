"""Creates FAISS indexes of each kind, chooses the kind, and tunes how far a search must look."""

import contextlib
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from tasks.retrieve.rows import Rows

FLAT_UP_TO = 50_000
"""Most rows for which `auto` chooses a flat index."""
CELL, MOST_CELLS = 256, 1024
"""Rows per cell of an inverted file, and the most cells."""
LINKS = 32
"""Links per row in an HNSW graph."""
ROOM = 800e6
"""Bytes of float16 codes above which an inverted file uses 8 bits per value: a million cases stay within 1 GB."""
MARGIN = 0.05
"""How far the range of an 8-bit code exceeds the range of the training values, as a share of that range."""
INVERTED: Any = faiss.SearchParametersIVF
"""Parameters of one search; typed as Any because FAISS's stubs lack its fields."""
QUERIES, NEAREST = 256, 10
"""Stored rows used as queries to tune a search, and the neighbours counted for each."""
COMPLETE = 0.9995
"""Share of the true nearest neighbours that a search must find."""


def choose_kind(kind: str, rows: int) -> str:
    """Resolve a kind, which may be `auto`, to `flat`, `ivf` or `hnsw` for a number of rows; no rows give `flat`."""
    if kind == "auto":
        kind = "flat" if rows <= FLAT_UP_TO else "ivf"
    return kind if rows else "flat"


def flat(width: int) -> faiss.Index:
    """An index that compares all rows, in float32."""
    return faiss.IndexIDMap(faiss.IndexFlatIP(width))


def graph(width: int) -> faiss.Index:
    """An HNSW index (Malkov and Yashunin, 2018) in float16, which searches along a graph of neighbours."""
    codes: Any = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexHNSWSQ(width, codes, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True  # float16 codes need no training
    return faiss.IndexIDMap(index)


def inverted_file(rows: Rows) -> faiss.Index:
    """An index that compares the rows of the nearest cells, stored as codes of residuals (Jegou et al., 2011).

    A residual is a row minus its cell's centre. A value takes 16 bits, or 8 if 16 would exceed `ROOM`. Cells and codes
    are trained on the rows `(n, d)`.
    """
    width, cells = rows.shape[1], min(MOST_CELLS, len(rows) // CELL + 1)
    quantizer = faiss.IndexFlatIP(width)
    codes = faiss.ScalarQuantizer.QT_8bit if is_large(rows) else faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, cells, codes, faiss.METRIC_INNER_PRODUCT)
    index.sq.rangestat, index.sq.rangestat_arg = faiss.ScalarQuantizer.RS_minmax, MARGIN
    index.cp.max_points_per_centroid, index.cp.niter = 64, 10  # train on a sample of the rows
    index.cp.min_points_per_centroid = 1  # no warning if there are few rows
    with one_thread():
        index.train(rows)
    return index


def is_large(rows: Rows) -> bool:
    """Whether float16 codes of the rows `(n, d)` would take more than `ROOM`."""
    return 2 * rows.size > ROOM


def graph_of(index: faiss.Index) -> Any:
    """The HNSW index inside an index, or None."""
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index
    return inner if isinstance(inner, faiss.IndexHNSW) else None


def look_far_enough(index: faiss.Index, rows: Rows) -> None:
    """Double the cells or nodes that a search visits until it finds COMPLETE of the true nearest neighbours.

    The queries are some of the stored rows `(n, d)`. A flat index, which compares all rows, is left unchanged.
    """
    graph, cells = graph_of(index), faiss.try_extract_index_ivf(index)
    if graph is None and cells is None:
        return
    queries = rows[spread(len(rows), QUERIES)]
    target: Any = graph.hnsw if graph is not None else cells
    name, look, most = ("efSearch", 16, 2048) if graph is not None else ("nprobe", 1, int(target.nlist))
    with one_thread():
        if graph is not None:
            wide = graph.storage.search(queries, NEAREST + 1)[0]
        else:
            wide = index.search(queries, NEAREST + 1, params=INVERTED(nprobe=most))[0]
        # Any row as near as the last neighbour counts as found, whichever it is. The query row itself does not count.
        bound = wide[:, -1:] - 1e-6
        there = (wide >= bound).sum() - len(queries)
        while True:
            setattr(target, name, min(look, most))
            found = (index.search(queries, NEAREST + 1)[0] >= bound).sum() - len(queries)
            if found >= COMPLETE * there or look >= most:
                return
            look *= 2


def spread(rows: int, count: int) -> NDArray[np.intp]:
    """At most `count` indices, evenly spaced over the rows."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.intp))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run FAISS on one thread: with more, the order in which it adds rows varies."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
