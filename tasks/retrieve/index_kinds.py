"""FAISS indexes of each kind, empty: which of them a library gets, and how far a search in one must look."""

import contextlib
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from tasks.retrieve.rows import Rows

FLAT_UP_TO = 50_000
"""Rows up to which `auto` compares them all."""
CELL, MOST_CELLS = 256, 1024
"""Rows in a cell of an inverted file, while there are no more cells than that."""
LINKS = 32
"""Of each row in the graph of HNSW."""
ROOM = 800e6
"""Bytes of float16 codes beyond which an inverted file keeps 8 bits a number: a million cases stay within 1 GB."""
MARGIN = 0.05
"""How far an 8-bit code goes beyond the least and greatest number of the training, as a share of their distance."""
INVERTED: Any = faiss.SearchParametersIVF
"""Of one search; the stubs of FAISS know none of its fields."""
ASKED, NEAREST = 256, 10
"""Stored rows that are asked to find how far a search must look, and neighbours of each that are counted."""
COMPLETE = 0.9995
"""Share of the neighbours in the whole index that a search must find."""


def choose_kind(kind: str, rows: int) -> str:
    """`flat`, `ivf` or `hnsw`, for `auto` or one of these and a number of rows."""
    if kind == "auto":
        kind = "flat" if rows <= FLAT_UP_TO else "ivf"
    return kind if rows else "flat"


def flat(width: int) -> faiss.Index:
    """Compares all rows, as float32."""
    return faiss.IndexIDMap(faiss.IndexFlatIP(width))


def graph(width: int) -> faiss.Index:
    """Walks a graph of neighbours (Malkov and Yashunin, 2018), in float16."""
    codes: Any = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexHNSWSQ(width, codes, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True  # float16 has nothing to learn
    return faiss.IndexIDMap(index)


def inverted_file(rows: Rows) -> faiss.Index:
    """Compares the rows of the nearest cells, as codes of what is left after the cell's centre (Jegou et al., 2011).

    A number takes 16 bits, or 8 where `ROOM` is too little for them. Cells and codes are trained on the rows `(n, d)`.
    """
    width, cells = rows.shape[1], min(MOST_CELLS, len(rows) // CELL + 1)
    quantizer = faiss.IndexFlatIP(width)
    codes = faiss.ScalarQuantizer.QT_8bit if is_large(rows) else faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, cells, codes, faiss.METRIC_INNER_PRODUCT)
    index.sq.rangestat, index.sq.rangestat_arg = faiss.ScalarQuantizer.RS_minmax, MARGIN
    index.cp.max_points_per_centroid, index.cp.niter = 64, 10  # the training looks at a share of the rows
    index.cp.min_points_per_centroid = 1  # no warning where there are few
    with one_thread():
        index.train(rows)
    return index


def is_large(rows: Rows) -> bool:
    """Whether float16 codes of the rows `(n, d)` would take more than `ROOM`."""
    return 2 * rows.size > ROOM


def graph_of(index: faiss.Index) -> Any:
    """The HNSW index within, None where there is none."""
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index
    return inner if isinstance(inner, faiss.IndexHNSW) else None


def look_far_enough(index: faiss.Index, rows: Rows) -> None:
    """Set the cells or nodes of a search to the fewest, by doubling, that find COMPLETE of the nearest of all.

    Asked with some of the rows `(n, d)` that the index holds; nothing is set where it compares all.
    """
    graph, cells = graph_of(index), faiss.try_extract_index_ivf(index)
    if graph is None and cells is None:
        return
    asked = rows[spread(len(rows), ASKED)]
    target: Any = graph.hnsw if graph is not None else cells
    name, look, most = ("efSearch", 16, 2048) if graph is not None else ("nprobe", 1, int(target.nlist))
    with one_thread():
        if graph is not None:
            wide = graph.storage.search(asked, NEAREST + 1)[0]
        else:
            wide = index.search(asked, NEAREST + 1, params=INVERTED(nprobe=most))[0]
        # Rows as near as the last of them count as found, whichever these are; the asked row itself does not count.
        bound = wide[:, -1:] - 1e-6
        there = (wide >= bound).sum() - len(asked)
        while True:
            setattr(target, name, min(look, most))
            found = (index.search(asked, NEAREST + 1)[0] >= bound).sum() - len(asked)
            if found >= COMPLETE * there or look >= most:
                return
            look *= 2


def spread(rows: int, count: int) -> NDArray[np.intp]:
    """At most `count` places, evenly among the rows."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.intp))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """FAISS adds rows in an order that depends on its threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
