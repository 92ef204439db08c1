"""A library's index of unit rows, in ordinary FAISS files. Rows can be added and removed; builds are deterministic."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from tasks.retrieve.index_kinds import (
    INVERTED,
    choose_kind,
    flat,
    graph,
    graph_of,
    inverted_file,
    is_large,
    look_far_enough,
    one_thread,
    spread,
)
from tasks.retrieve.rows import Numbers, Rows

Found = tuple[Rows, Numbers]
"""Inner products and numbers of each query's nearest rows, `(n, count)`, nearest first; -1 where there is none."""

INDEX, FINE = "index.faiss", "fine.faiss"
PLAIN: Any = faiss.SearchParameters
AGAIN, MORE = 2, 8
"""For `count` rows wanted, the finer codes of `AGAIN * count + MORE` rows are compared."""
BLOCK, SAMPLE = 65_536, 65_536
"""Rows encoded at a time, and rows that train the finer codes."""


@dataclass(frozen=True)
class Index:
    """An inner-product index of unit rows, each stored under a number."""

    main: Any
    """The index that is searched: `IndexIDMap` of `IndexFlatIP` or `IndexHNSWSQ`, or `IndexIVFScalarQuantizer`."""
    fine: Any = None
    """For an inverted file with 8 bits per value: 4 more bits for the residual, `IndexIDMap` of `IndexScalarQuantizer`.
    FAISS's `IndexRefine` does the same, but cannot remove single rows."""

    @property
    def kind(self) -> str:
        """`flat`, `ivf` or `hnsw`."""
        if graph_of(self.main) is not None:
            return "hnsw"
        return "flat" if faiss.try_extract_index_ivf(self.main) is None else "ivf"

    def __len__(self) -> int:
        return int(self.main.ntotal)

    def search(self, rows: Rows, count: int) -> Found:
        """The `count` nearest stored rows of each query row, `(n, d)`."""
        return self._finely(rows, count, self.main.search(rows, self._looked_for(count)))

    def search_all(self, row: Rows, count: int, hidden: Collection[int]) -> Found:
        """The `count` nearest of one row `(1, d)`, without the hidden numbers.

        Compares every stored code, unlike `search`. Returns fewer than `count` only if no more are left.
        """
        barred = np.fromiter(hidden, np.int64, len(hidden))
        cells, nodes = faiss.try_extract_index_ivf(self.main), graph_of(self.main)
        if nodes is not None:
            names = _names(self.main)
            barred = np.flatnonzero(np.isin(names, barred))
        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(barred))
        if cells is not None:
            every = INVERTED(sel=selector, nprobe=cells.nlist)
            found = self._finely(row, count, self.main.search(row, self._looked_for(count), params=every))
        elif nodes is not None:
            near, places = nodes.storage.search(row, count, params=PLAIN(sel=selector))
            found = near, np.where(places < 0, -1, names[places])
        else:
            found = self.main.search(row, count, params=PLAIN(sel=selector))
        kept = found[1][0] >= 0
        return found[0][:, kept], found[1][:, kept]

    def _looked_for(self, count: int) -> int:
        return count if self.fine is None else AGAIN * count + MORE

    def _finely(self, rows: Rows, count: int, found: Found) -> Found:
        """The `count` nearest of what a search found, re-ranked by the finer codes if there are any."""
        if self.fine is None:
            return found
        near, numbers = found
        names = faiss.rev_swig_ptr(self.fine.id_map.data(), self.fine.ntotal)
        for row, one, those in zip(rows, near, numbers, strict=True):
            there = those >= 0
            one[there] += self.fine.index.reconstruct_batch(np.searchsorted(names, those[there])) @ row
        order = np.argsort(-near, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(near, order, 1), np.take_along_axis(numbers, order, 1)

    def add(self, rows: Rows, numbers: Numbers) -> None:
        """Add unit rows `(n, d)` under numbers greater than all stored ones. The index must be in memory."""
        rows, numbers = np.ascontiguousarray(rows), np.asarray(numbers, np.int64)
        with one_thread():
            if self.fine is None:
                self.main.add_with_ids(rows, numbers)
                return
            for start in range(0, len(rows), BLOCK):
                part = slice(start, start + BLOCK)
                codes = self.main.sa_encode(rows[part])
                self.main.add_sa_codes(codes, numbers[part])
                self.fine.add_with_ids(rows[part] - self.main.sa_decode(codes), numbers[part])

    def without(self, numbers: Numbers) -> "Index":
        """The index without some numbers; nothing of their rows remains. The index must be in memory.

        Flat indexes and inverted files are changed in place. An HNSW graph cannot be: it is rebuilt from its codes.
        """
        nodes = graph_of(self.main)
        if nodes is None:
            for index in (self.main, self.fine):
                if index is not None:
                    index.remove_ids(faiss.IDSelectorBatch(np.asarray(numbers, np.int64)))
            return self
        kept = _names(self.main)
        places = np.flatnonzero(~np.isin(kept, numbers))
        return build_index(nodes.storage.reconstruct_n(0, nodes.ntotal)[places], kept[places], "hnsw")

    def write(self, folder: Path) -> None:
        """Write ordinary FAISS files into a folder: `index.faiss`, and `fine.faiss` if there are finer codes."""
        faiss.write_index(self.main, str(folder / INDEX))
        if self.fine is not None:
            faiss.write_index(self.fine, str(folder / FINE))


def build_index(rows: Rows, numbers: Numbers, kind: str = "auto") -> Index:
    """Build an index of unit rows, on one thread so that the result is deterministic.

    Args:
        rows: rows to store, `(n, d)`.
        numbers: their numbers, `(n,)`, distinct and ascending, which a search returns.
        kind: `flat`, `ivf` or `hnsw`; `auto` is flat up to 50,000 rows, and ivf above; see `index_kinds`.

    The number of cells or nodes that a search visits is tuned on stored rows, so that it finds almost all that an
    exhaustive search finds (`look_far_enough`).
    """
    kind = choose_kind(kind, len(rows))
    if kind == "ivf":
        main = inverted_file(rows)
        index = Index(main, _finer_codes(main, rows) if is_large(rows) else None)
    else:
        index = Index((graph if kind == "hnsw" else flat)(rows.shape[1]))
    index.add(rows, numbers)
    look_far_enough(index.main, rows)
    return index


def read_index(folder: Path, mapped: bool = True) -> Index:
    """Read an index that `write` wrote; with `mapped`, its codes stay on disk until they are accessed."""
    fine = folder / FINE
    return Index(_read(folder / INDEX, mapped), _read(fine, mapped) if fine.is_file() else None)


def _read(path: Path, mapped: bool) -> faiss.Index:
    if not mapped:
        return faiss.read_index(str(path))
    with path.open("rb") as file:
        inverted = file.read(2) == b"Iw"  # FAISS maps inverted files by one flag, all else by another
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP if inverted else faiss.IO_FLAG_MMAP_IFC)


def _finer_codes(main: Any, rows: Rows) -> faiss.Index:
    """An empty index for the residuals of `main`'s 8-bit codes, trained on some of the rows."""
    codes = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_4bit, faiss.METRIC_INNER_PRODUCT)
    some = rows[spread(len(rows), SAMPLE)]
    with one_thread():
        codes.train(some - main.sa_decode(main.sa_encode(some)))
    return faiss.IndexIDMap(codes)


def _names(index: Any) -> Numbers:
    """The numbers of an `IndexIDMap`, by position."""
    return faiss.vector_to_array(index.id_map)
