"""Reads published files (JSON, Parquet, CSV and JSON lines) row by row; unreadable ones raise FindingError."""

import csv
import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingest.finding import problem
from tasks.ingest.rows import Row
from tasks.records import Split

BATCH_ROWS = 64
"""Parquet rows in memory at once: each row holds a whole image."""

Naming = Callable[[Sequence[str], str], Mapping[str, str]]
"""Takes a table's column names and their place in the file; returns our names of those that are renamed."""


def read_rows(path: Path, split: Split = "train") -> list[Row]:
    """Read a JSON file, which must be a non-empty list of objects."""
    expected, remedy = "a JSON list of objects", "restore the file as published"
    try:
        values = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise problem(str(path), expected, f"an unreadable file ({error.strerror})", remedy) from None
    except (ValueError, RecursionError) as error:
        raise problem(str(path), expected, f"something else ({_one_line(error)})", remedy) from None
    if not isinstance(values, list) or not values:
        raise problem(str(path), expected, f"{'an empty' if values == [] else 'a'} {type(values).__name__}", remedy)
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise problem(f"{path}, row {number}", "an object", reprlib.repr(value), remedy)
    return [Row(path, number, value, split, number - 1) for number, value in enumerate(values, 1)]


def parse_json(text: str) -> Any:
    """Parse a JSON value. NaN becomes null, as pandas writes it for a missing value."""
    return json.loads(text, parse_constant=lambda _: None)


def as_published(names: Sequence[str], where: str) -> Mapping[str, str]:
    """Keep the column names of the file."""
    return {}


def read_parquet(
    path: Path, fields: Sequence[str], optional: Sequence[str] = (), naming: Naming = as_published
) -> Iterator[Row]:
    """Read a Parquet file, a few rows in memory at a time; refuse a file without one of the fields.

    Optional fields are read where the file has them.
    """
    expected, remedy = f"a Parquet table with {', '.join(fields)}", "restore the file as published"
    try:
        with pq.ParquetFile(path) as table:
            published = table.schema_arrow.names
            known = naming(published, f"{path}, row 1")
            names = [known.get(name, name) for name in published]
            _refuse_wrong_names(names, fields, f"{path}, row 1", expected)
            wanted = {
                name: field for name, field in zip(published, names, strict=True) if field in (*fields, *optional)
            }
            number = 0
            for batch in table.iter_batches(BATCH_ROWS, columns=list(wanted)):
                for cells in batch.to_pylist():
                    number += 1
                    values = {wanted[name]: value for name, value in cells.items()}
                    yield Row(path, number, values, index=number - 1, published=_reverse(known))
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        raise problem(str(path), expected, f"something else ({_one_line(error)})", remedy) from None


def read_csv(path: Path, fields: Sequence[str], split: Split = "train", naming: Naming = as_published) -> Iterator[Row]:
    """Read a CSV file with a header; refuse one that lacks a field or has two columns of one name.

    Cells are separated by commas, or by semicolons or tabs where the header has more of these. A row with more or fewer
    cells than the header is marked as faulty; a quote that never ends makes the file unreadable.
    """
    expected, remedy = f"a CSV table in UTF-8 with {', '.join(fields)}", "restore the file as published"
    try:
        with path.open(encoding="utf-8-sig", newline="") as source:
            delimiter = _delimiter(source.readline())
            source.seek(0)
            lines = csv.reader(source, strict=True, delimiter=delimiter)
            published = [name.strip() for name in next(lines, [])]
            known = naming(published, f"{path}, row 1")
            header = [known.get(name, name) for name in published]
            _refuse_wrong_names(header, fields, f"{path}, row 1", expected)
            for number, cells in enumerate(filter(None, lines), 1):  # a blank line has no cells
                fault = None
                if len(cells) != len(header):
                    where = f"{path}, row {number}"
                    fault = problem(where, f"{len(header)} cells", str(len(cells)), "correct the row")
                values = dict(zip(header, cells, strict=False))
                yield Row(path, number, values, split, number - 1, fault=fault, published=_reverse(known))
    except OSError as error:
        raise problem(str(path), expected, f"an unreadable file ({error.strerror})", remedy) from None
    except UnicodeDecodeError:
        raise problem(str(path), expected, "another encoding", "save it as UTF-8") from None
    except (ValueError, csv.Error) as error:
        raise problem(str(path), expected, f"something else ({_one_line(error)})", remedy) from None


def _reverse(known: Mapping[str, str]) -> dict[str, str]:
    return {field: name for name, field in known.items()}


def _delimiter(header: str) -> str:
    """The delimiter of a CSV file, from its first line: spreadsheets use the one that is usual in their country."""
    return max(",", ";", "\t", key=header.count)


def _refuse_wrong_names(names: Sequence[str], fields: Sequence[str], where: str, expected: str) -> None:
    """Raise FindingError where a table lacks a field, or two of its columns have one name."""
    lacking = next((field for field in fields if field not in names), None)
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if lacking or twice:
        found = f"no field {lacking!r}" if lacking else f"more than one field {reprlib.repr(twice)}"
        raise problem(where, expected, found, "correct the names of its columns, or restore the file as published")


def read_jsonl(path: Path) -> Iterator[Row]:
    """Read a file with one JSON object a line as training rows; any other line is a faulty row."""
    for number, line in read_lines(path):
        try:
            values = parse_json(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            values = None
        fault = None
        if not isinstance(values, dict):
            fault = problem(f"{path}, row {number}", "a JSON object", "something else", "correct the row")
            values = {}
        yield Row(path, number, values, "train", number - 1, fault=fault)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read the non-blank lines of a text file, numbered from 1."""
    try:
        with path.open("rb") as source:
            yield from enumerate(filter(bytes.strip, source), 1)
    except OSError as error:
        found, remedy = f"an unreadable file ({error.strerror})", "restore the file as published"
        raise problem(str(path), "a text file", found, remedy) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
