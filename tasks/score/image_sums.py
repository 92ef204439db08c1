"""Sums over the questions of each image: the table that a hospital shares for intervals, without any id."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.score.labels import LABELS
from tasks.score.metrics import METRICS, Metric

LABELLED = tuple(f"{what}_{label}" for what in ("right", "gold", "said") for label in LABELS)
"""Columns that count closed questions. `right_yes`: the reference is `yes`, and the answer is right. `gold_yes`: the
reference is `yes`. `said_yes`: the answer is `yes`. The other labels have the same three."""
ALWAYS = ("n", "correct")
"""Columns that are never withheld."""


@dataclass(frozen=True, slots=True)
class ImageSums:
    """One configuration's sums over the questions of one image.

    Rows are sorted by their figures, so that their order reveals nothing. Rows of the group `all` cover every question;
    other rows cover the questions with one value of a group. Rows of different groups cannot be linked to one image.
    """

    configuration: str
    group: str
    """`all`, or one of SHARED_GROUPS."""
    value: str | None
    """Value of the group, in the words of `tasks.text.vocabulary`; None for `all`."""
    sums: Mapping[str, float | None]
    """Sums by column; None where withheld. Columns of counts hold whole numbers."""


def counted(metric: Metric) -> str:
    """The column that counts the questions of a metric."""
    return metric.kind or "n"


def summed() -> list[Metric]:
    """The metrics with a column that sums their scores; a metric of labels is computed from LABELLED instead."""
    return [metric for metric in METRICS.values() if not metric.of_labels]


def columns() -> list[str]:
    """The columns of figures, in order: one for each metric, after the count of questions of its kind."""
    found: dict[str, None] = {}
    for metric in summed():
        found |= {counted(metric): None, metric.name: None}
    return [*found, *LABELLED]


def counts() -> set[str]:
    """The columns of whole numbers."""
    return {*LABELLED, *map(counted, summed())}


def sums_schema() -> pa.Schema:
    """The columns of the table."""
    whole = counts()
    figures = (
        pa.field(name, pa.int64() if name in whole else pa.float64(), nullable=name not in ALWAYS) for name in columns()
    )
    named = (("configuration", False), ("group", False), ("value", True))
    return pa.schema([*(pa.field(name, pa.string(), nullable=nullable) for name, nullable in named), *figures])


def write_sums(sink: BinaryIO, rows: Sequence[ImageSums]) -> None:
    """Write rows as a Parquet table, in the given order. Raises KeyError where a row lacks a column."""
    schema = sums_schema()
    values = {name: [getattr(row, name) for row in rows] for name in schema.names[:3]}
    values |= {name: [row.sums[name] for row in rows] for name in columns()}
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        writer.write_table(pa.table(values, schema=schema))


def read_sums(path: Path) -> list[ImageSums]:
    """Read a table that `write_sums` wrote, in its order. Raises ValueError where the columns differ."""
    table = pq.read_table(path)
    if not table.schema.equals(sums_schema()):
        raise ValueError(f"Expected the columns of ImageSums in {path}, found {', '.join(map(str, table.schema))}.")
    return list(_rows(table))


def _rows(table: pa.Table) -> Iterator[ImageSums]:
    for row in table.to_pylist():
        yield ImageSums(row.pop("configuration"), row.pop("group"), row.pop("value"), row)
