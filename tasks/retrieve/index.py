"""FAISS indexes of unit rows: which kind a library gets, the same bytes at every call, ordinary FAISS files."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from tasks.retrieve.encoder import Rows

Numbers = NDArray[np.int64]

FLAT_UP_TO = 50_000
"""Rows up to which `auto` compares them all."""
CELL, MOST_CELLS = 256, 1024
"""Rows in a cell of an inverted file, while there are no more cells than that."""
DEVIATIONS = 3.9
"""Range of an 8-bit code, in standard deviations: a wider one is coarser, a narrower one cuts more off."""
LINKS = 32
"""Of each row in the graph of HNSW."""
ROOM = 800e6
"""Bytes of float16 codes beyond which an inverted file keeps 8 bits a number: a million cases stay within 1 GB."""
PLAIN: Any = faiss.SearchParameters
INVERTED: Any = faiss.SearchParametersIVF
"""Of one search; the stubs of FAISS know none of their fields."""
ASKED, NEAREST = 256, 10
"""Stored rows that are asked to find how far a search must look, and neighbours of each that are counted."""
COMPLETE = 0.9995
"""Share of the neighbours in the whole index that a search must find."""


def choose_kind(kind: str, rows: int) -> str:
    """`flat`, `ivf` or `hnsw`, for `auto` or one of these and a number of rows."""
    if kind == "auto":
        kind = "flat" if rows <= FLAT_UP_TO else "ivf"
    return kind if rows else "flat"


def kind_of(index: faiss.Index) -> str:
    """What an index is: `flat`, `ivf` or `hnsw`."""
    if _graph(index) is not None:
        return "hnsw"
    return "flat" if faiss.try_extract_index_ivf(index) is None else "ivf"


def build_index(rows: Rows, numbers: Numbers, kind: str = "auto") -> faiss.Index:
    """An inner-product index of unit rows `(n, d)` under their numbers `(n,)`; on one thread, so always the same.

    Args:
        rows: what is stored.
        numbers: what a search returns for them, distinct.
        kind: `flat` compares all rows; `ivf` those of the nearest cells, as codes of what is left after the cell's
            centre (Jegou et al., 2011, with one code a number); `hnsw` walks a graph of them (Malkov and
            Yashunin, 2018) in float16; `auto` is flat up to 50,000 rows, and ivf above.

    How many cells or nodes a search looks at is found by asking stored rows, so that it finds what it would among all.
    """
    kind, width = choose_kind(kind, len(rows)), rows.shape[1]
    index: Any
    if kind == "flat":
        index = faiss.IndexIDMap(faiss.IndexFlatIP(width))
    elif kind == "hnsw":
        codes: Any = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIDMap(faiss.IndexHNSWSQ(width, codes, LINKS, faiss.METRIC_INNER_PRODUCT))
    else:
        index = _inverted_file(rows)
    with _one_thread():
        index.train(rows)
    add_rows(index, rows, numbers)
    if kind != "flat" and len(rows):
        _look_far_enough(index, rows[_spread(len(rows), ASKED)])
    return index


def add_rows(index: faiss.Index, rows: Rows, numbers: Numbers) -> None:
    """Add unit rows `(n, d)` to an index that is in memory, under numbers that it does not hold yet."""
    with _one_thread():
        index.add_with_ids(np.ascontiguousarray(rows), np.asarray(numbers, np.int64))


def without_numbers(index: faiss.Index, numbers: Numbers) -> faiss.Index:
    """An index in memory less some numbers: nothing of their rows is left in it.

    Flat indexes and inverted files drop them in place. The graph of HNSW cannot, and is built anew from its codes.
    """
    graph = _graph(index)
    if graph is None:
        index.remove_ids(faiss.IDSelectorBatch(np.asarray(numbers, np.int64)))
        return index
    kept = _names(index)
    places = np.flatnonzero(~np.isin(kept, numbers))
    rows = graph.storage.reconstruct_n(0, graph.ntotal)[places]
    return build_index(rows, kept[places], "hnsw")


def nearest_of_all(index: faiss.Index, row: Rows, count: int, hidden: Collection[int]) -> tuple[Rows, Numbers]:
    """The `count` nearest of one row `(1, d)` among all numbers but the hidden ones: inner products and numbers.

    Every stored code is compared, however far a search looks otherwise. Fewer than `count` where no more are left.
    """
    barred = np.fromiter(hidden, np.int64, len(hidden))
    cells = faiss.try_extract_index_ivf(index)
    graph = _graph(index)
    if graph is not None:
        names = _names(index)
        barred = np.flatnonzero(np.isin(names, barred))
    selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(barred))
    if cells is not None:
        found = index.search(row, count, params=INVERTED(sel=selector, nprobe=cells.nlist))
    elif graph is not None:
        near, places = graph.storage.search(row, count, params=PLAIN(sel=selector))
        found = near, np.where(places < 0, -1, names[places])
    else:
        found = index.search(row, count, params=PLAIN(sel=selector))
    kept = found[1][0] >= 0
    return found[0][0][kept], found[1][0][kept]


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an ordinary FAISS file."""
    faiss.write_index(index, str(path))


def read_index(path: Path, mapped: bool = True) -> faiss.Index:
    """An index of an ordinary FAISS file; `mapped` leaves its codes on disk until they are looked at."""
    if not mapped:
        return faiss.read_index(str(path))
    with path.open("rb") as file:
        inverted = file.read(2) == b"Iw"  # FAISS maps inverted files by one flag, all else by another
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP if inverted else faiss.IO_FLAG_MMAP_IFC)


def _inverted_file(rows: Rows) -> faiss.IndexIVFScalarQuantizer:
    width, cells = rows.shape[1], min(MOST_CELLS, len(rows) // CELL + 1)
    quantizer = faiss.IndexFlatIP(width)
    codes = faiss.ScalarQuantizer.QT_fp16 if 2 * rows.size <= ROOM else faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, cells, codes, faiss.METRIC_INNER_PRODUCT)
    index.sq.rangestat, index.sq.rangestat_arg = faiss.ScalarQuantizer.RS_meanstd, DEVIATIONS
    index.cp.max_points_per_centroid, index.cp.niter = 64, 10  # the training looks at a share of the rows
    index.cp.min_points_per_centroid = 1  # no warning where there are few
    return index


def _look_far_enough(index: faiss.Index, asked: Rows) -> None:
    """Set the cells or nodes of a search to the fewest, by doubling, that find COMPLETE of the nearest of all."""
    graph, cells = _graph(index), faiss.try_extract_index_ivf(index)
    target: Any = graph.hnsw if graph is not None else cells
    name, look, most = ("efSearch", 16, 2048) if graph is not None else ("nprobe", 1, int(target.nlist))
    with _one_thread():
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


def _names(index: Any) -> Numbers:
    """The numbers of an index that keeps them apart, by place."""
    return faiss.vector_to_array(index.id_map)


def _graph(index: faiss.Index) -> Any:
    """The HNSW index within, None where there is none."""
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index
    return inner if isinstance(inner, faiss.IndexHNSW) else None


def _spread(rows: int, count: int) -> NDArray[np.intp]:
    """At most `count` places, evenly among the rows."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.intp))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS adds rows in an order that depends on its threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
