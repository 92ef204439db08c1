"""Sums over the questions of one image, and their table: what a hospital shares for intervals, without any id."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.score.labels import LABELS
from tasks.score.metrics import METRICS, Metric

LABELLED = tuple(f"{what}_{label}" for what in ("right", "gold", "said") for label in LABELS)
"""Columns of closed questions whose right label is `yes` (and so on) and that were answered rightly; whose right label
is `yes`; to which the answer is `yes`."""
ALWAYS = ("n", "correct")
"""Columns that are never withheld."""


@dataclass(frozen=True, slots=True)
class ImageSums:
    """Sums over the questions of one image that one configuration answered.

    Rows are sorted by their figures, so that their order tells nothing either. Rows of `all` are of every question, the
    others of the questions of one value of a group; nothing tells which rows of two groups are about one image.
    """

    configuration: str
    group: str
    """`all`, `dataset`, `modality`, `organ` or `topic`."""
    value: str | None
    """Of the group, in the words of `tasks.text.vocabulary`; None of `all`."""
    sums: Mapping[str, float | None]
    """By column; None where it is withheld. Whole numbers in the columns of counts."""


def counted(metric: Metric) -> str:
    """The column with the number of questions that a metric is of."""
    return metric.kind or "n"


def summed() -> list[Metric]:
    """The metrics with a column, which sums their scores; one of labels is made of LABELLED."""
    return [metric for metric in METRICS.values() if not metric.of_labels]


def columns() -> list[str]:
    """The columns of figures, in their order: each metric's, before the first of a kind the number of its questions."""
    found: dict[str, None] = {}
    for metric in summed():
        found |= {counted(metric): None, metric.name: None}
    return [*found, *LABELLED]


def counts() -> set[str]:
    """The columns of whole numbers."""
    return {*LABELLED, *map(counted, summed())}


def _schema() -> pa.Schema:
    whole = counts()
    figures = (
        pa.field(name, pa.int64() if name in whole else pa.float64(), nullable=name not in ALWAYS) for name in columns()
    )
    named = (("configuration", False), ("group", False), ("value", True))
    return pa.schema([*(pa.field(name, pa.string(), nullable=nullable) for name, nullable in named), *figures])


def write_sums(sink: BinaryIO, rows: Sequence[ImageSums]) -> None:
    """Write rows as a Parquet table, in the given order. Raises KeyError where a row lacks a column."""
    schema = _schema()
    values = {name: [getattr(row, name) for row in rows] for name in schema.names[:3]}
    values |= {name: [row.sums[name] for row in rows] for name in columns()}
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        writer.write_table(pa.table(values, schema=schema))


def read_sums(path: Path) -> list[ImageSums]:
    """Read a table that `write_sums` wrote, in its order. Raises ValueError where its columns are other ones."""
    table = pq.read_table(path)
    if not table.schema.equals(_schema()):
        raise ValueError(f"Expected the columns of ImageSums in {path}, found {', '.join(map(str, table.schema))}.")
    return list(_rows(table))


def _rows(table: pa.Table) -> Iterator[ImageSums]:
    for row in table.to_pylist():
        yield ImageSums(row.pop("configuration"), row.pop("group"), row.pop("value"), row)
