"""The table of a library's cases: number, case, image and patient of each, in a few bytes per case."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.records import Case
from tasks.retrieve.rows import Numbers


@dataclass(frozen=True)
class Entries:
    """The cases of a library, as an Arrow table; a million cases fit in 100 MB."""

    table: pa.Table
    """Columns `number` (the case's id in the index), `case_id`, `image_id`, and `group` (the patient, or null)."""

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def numbers(self) -> Numbers:
        """`(n,)`, ascending."""
        return _numbers(self.table["number"])

    @cached_property
    def by_image(self) -> "Named":
        """Numbers by image."""
        return Named(self.table["image_id"], self.table["number"])

    @cached_property
    def by_group(self) -> "Named":
        """Numbers by patient."""
        return Named(self.table["group"], self.table["number"])

    def case_ids(self, numbers: Sequence[int] | Numbers) -> list[str]:
        """The case ids of these numbers, in the same order."""
        places = np.searchsorted(self.numbers, numbers).astype(np.int64)
        arrow = pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)])
        return self.table["case_id"].take(arrow).to_pylist()

    def numbers_of(self, case_ids: Iterable[str]) -> Numbers:
        """The numbers of the given cases that are in the library."""
        return self.numbers[pc.is_in(self.table["case_id"], pa.array(case_ids, pa.string())).to_numpy()]

    def without(self, numbers: Numbers) -> "Entries":
        """The entries without these numbers; the others keep their numbers."""
        return Entries(self.table.filter(pa.array(~np.isin(self.numbers, numbers))))

    def and_cases(self, cases: Sequence[Case]) -> "Entries":
        """The entries plus these cases, under new numbers."""
        start = int(self.numbers[-1]) + 1 if len(self) else 0
        return Entries(pa.concat_tables([self.table, _table(cases, start)]))

    def write(self, path: Path) -> None:
        """Write the entries as one Parquet table."""
        pq.write_table(self.table, path, compression="zstd")


class Named:
    """Finds the numbers of a name by bisection over the names' 64-bit hashes, in 16 bytes per entry."""

    def __init__(self, names: pa.ChunkedArray, numbers: pa.ChunkedArray) -> None:
        if names.null_count:
            names, numbers = names.drop_null(), numbers.filter(names.is_valid())
        numbered = _numbers(numbers)
        keys, start = np.empty(len(names), np.int64), 0
        for part in _parts(names):
            keys[start : start + len(part)] = [hash(name) for name in part.to_pylist()]
            start += len(part)
        order = np.argsort(keys, kind="stable")
        # A memoryview reads single numbers in a tenth of the time of an array.
        self.keys, self.numbers = keys[order].data, numbered[order].data

    def of(self, name: str) -> list[int]:
        """The numbers of the entries with this name."""
        key = hash(name)
        first = bisect_left(self.keys, key)
        return self.numbers[first : bisect_right(self.keys, key, first)].tolist()


def make_entries(cases: Sequence[Case]) -> Entries:
    """Make entries of cases, numbered from 0 in their order."""
    return Entries(_table(cases, 0))


def read_entries(path: Path) -> Entries:
    """Read entries that `write` wrote."""
    with pq.ParquetFile(path) as file:  # not `read_table`, whose datasets take 50 MB to load
        table = file.read(use_threads=False)
    pa.default_memory_pool().release_unused()  # Arrow's decoding buffers: 30 bytes a case
    return Entries(table)


def _numbers(column: pa.ChunkedArray) -> Numbers:
    """The column as a NumPy array on the same memory, without `to_numpy`, which would load pandas: 35 MB."""
    return np.asarray(np.from_dlpack(column.combine_chunks()) if len(column) else (), np.int64)


def _parts(names: pa.ChunkedArray, size: int = 16_384) -> Iterator[pa.Array]:
    for chunk in names.chunks:
        for start in range(0, len(chunk), size):
            yield chunk.slice(start, size)


def _table(cases: Sequence[Case], start: int) -> pa.Table:
    columns = {
        "number": pa.array(range(start, start + len(cases)), pa.int64()),
        "case_id": pa.array([case.id for case in cases], pa.string()),
        "image_id": pa.array([case.image_id for case in cases], pa.string()),
        "group": pa.array([case.group for case in cases], pa.string()),
    }
    return pa.table(columns)
