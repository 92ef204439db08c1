"""Reads and writes records as Parquet tables; the schemas are derived from the record classes."""

import types
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.records.contributions import Contribution
from tasks.records.data import Caption, Case, Finding, Image, ImagePair, SeenImage, Synthetic
from tasks.records.results import (
    EpochLoss,
    FailureModes,
    Neighbour,
    Prediction,
    Saliency,
    Share,
    UpdateCounts,
)

Record = TypeVar(
    "Record",
    Case,
    Image,
    Caption,
    Synthetic,
    Finding,
    Neighbour,
    UpdateCounts,
    Prediction,
    Saliency,
    Share,
    FailureModes,
    ImagePair,
    SeenImage,
    EpochLoss,
    Contribution,
)

ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), bytes: pa.binary()}


def schema(record: type) -> pa.Schema:
    """The Arrow schema of a record class: optional fields nullable, everything else required."""
    hints = get_type_hints(record)
    return pa.schema([_field(field.name, hints[field.name]) for field in fields(record)])


def _field(name: str, hint: Any) -> pa.Field:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return pa.field(name, ARROW[next(a for a in arguments if a is not type(None))], nullable=True)
    if origin is Literal:
        return pa.field(name, pa.string(), nullable=False)
    if origin is tuple:
        return pa.field(name, pa.list_(ARROW[arguments[0]]), nullable=False)
    return pa.field(name, ARROW[hint], nullable=False)


BATCH = 64
"""Rows with bytes that are written or read at once; few, because a row may hold a whole image."""


def write_table(sink: BinaryIO, record: type[Record], rows: Iterable[Record]) -> None:
    """Write rows of one record class as a Parquet table, in the given order.

    Rows that hold bytes are written in batches of BATCH, so only one batch is in memory.
    Raises ValueError if a required value is None.
    """
    columns = schema(record)
    waiting = iter(rows)
    most = BATCH if pa.binary() in columns.types else None
    with pq.ParquetWriter(sink, columns, compression="zstd") as writer:
        while batch := list(islice(waiting, most)):
            writer.write_table(_table(record, columns, batch))


def _table(record: type[Record], columns: pa.Schema, rows: Sequence[Record]) -> pa.Table:
    table = pa.table({name: [getattr(row, name) for row in rows] for name in columns.names}, schema=columns)
    for field in columns:
        if not field.nullable and table[field.name].null_count:  # Parquet would turn a missing list into an empty one
            raise ValueError(f"Expected a {field.name} in every {record.__name__}, found None.")
    return table


def read_images(path: Path, wanted: Collection[str] | None = None) -> Iterator[Image]:
    """Iterate over the images of a table, without holding all their bytes in memory; with `wanted`, only over these.

    Groups of rows that hold none of the wanted are skipped.
    """
    return _read_each(path, Image, "id", wanted)


def read_findings(path: Path, wanted: Collection[str] | None = None) -> Iterator[Finding]:
    """Iterate over the findings of a table, as `read_images`; `wanted` are ids of images."""
    return _read_each(path, Finding, "image_id", wanted)


def _read_each(path: Path, record: type[Record], name: str, wanted: Collection[str] | None) -> Iterator[Record]:
    with pq.ParquetFile(path) as table:
        groups: Iterable[int] = range(table.num_row_groups)
        if wanted is not None:
            groups = [
                each
                for each in groups
                if not set(wanted).isdisjoint(table.read_row_group(each, [name])[name].to_pylist())
            ]
        for batch in table.iter_batches(BATCH, list(groups)):
            rows = (record(**row) for row in batch.to_pylist())
            yield from (row for row in rows if wanted is None or getattr(row, name) in wanted)


def among(name: str, values: Iterable[str]) -> pc.Expression:
    """For `read_table`: whether a row's text of this name is one of some values."""
    return pc.field(name).isin(pa.array(list(values), pa.string()))


def read_table(path: Path, record: type[Record], only: pc.Expression | None = None) -> list[Record]:
    """Read a table that `write_table` wrote, in its order; with `only`, the rows of which this expression is true.

    Raises ValueError if its columns are not those of the record.
    """
    table = pq.read_table(path, filters=only)
    if not table.schema.equals(schema(record)):
        found = ", ".join(map(str, table.schema))
        raise ValueError(f"Expected the columns of {record.__name__} in {path}, found {found}.")
    columns = [table.column(field.name).to_pylist() for field in fields(record)]
    for index, field in enumerate(fields(record)):
        if pa.types.is_list(table.schema.field(field.name).type):
            columns[index] = [tuple(value) for value in columns[index]]
    return [record(*values) for values in zip(*columns, strict=True)]
