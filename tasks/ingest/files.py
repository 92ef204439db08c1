"""Guarded reading of published files: whatever is wrong with them becomes one sentence that says where.

Published datasets are other people's files: downloads break off, archives unpack into another folder, rows lack
fields or name files outside the dataset. Every such finding is a StudyError, made by `problem`.
"""

import csv
import json
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StudyError
from tasks.records import Split

NULLS = ("", "NULL")
"""Texts that stand for null; VQA-RAD writes both `"NULL"` and null."""
BATCH_ROWS = 64
"""Parquet rows held at once: a row holds a whole image."""

Value = TypeVar("Value")
Naming = Callable[[Sequence[str], str], Mapping[str, str]]
"""Of a table's column names and where they stand, those that are called otherwise here, and what."""


class FindingError(StudyError):
    """One finding in a published file: `where: expected ..., found ...; remedy.`"""

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(f"{where}: {reason}; {remedy}.")
        self.reason = reason
        """The finding alone. It names no path, since artifacts keep it."""


def problem(where: str, expected: str, found: str, remedy: str) -> FindingError:
    """The error for one finding; only `where` may hold a path."""
    return FindingError(where, f"expected {expected}, found {found}", remedy)


def find_root(root: Path | None, dataset: str, layouts: Sequence[str]) -> tuple[Path, str]:
    """The folder that holds a published dataset, and which of its layouts that is.

    Args:
        root: the folder the user named.
        dataset: its name, for the message.
        layouts: for each layout the pattern, relative to root, of a file that only this layout has.

    Returns the folder that holds the first file found, and the pattern that found it.
    """
    remedy = "set dataset.root to the folder that holds the dataset as published"
    folder, expected = named_folder(root, dataset, layouts, remedy)
    try:
        for layout in layouts:
            for path in folder.glob(layout):
                return path.parent, layout
    except OSError as error:
        raise problem(str(root), expected, f"an unreadable folder ({error.strerror})", remedy) from None
    raise problem(str(root), expected, "none of them", remedy)


def named_folder(root: Path | None, dataset: str, layouts: Sequence[str], remedy: str) -> tuple[Path, str]:
    """The folder that the user named, where it is one, and what is expected in it, for messages."""
    expected = f"the {dataset} dataset with one of " + ", ".join(f"`{layout}`" for layout in layouts)
    if root is None:
        raise problem("dataset.root", expected, "no folder", remedy)
    try:
        if not root.is_dir():
            raise problem(str(root), expected, "a file" if root.exists() else "no such folder", remedy)
    except OSError as error:
        raise problem(str(root), expected, f"an unreadable folder ({error.strerror})", remedy) from None
    return root, expected


def resolve(root: Path, *parts: str, where: str) -> Path:
    """The file below root that a row names.

    Refuses what leads out of root, be it an absolute path, `..` or a symbolic link.
    """
    base = root.resolve()
    try:
        path = base.joinpath(*parts).resolve()
        inside = path.is_relative_to(base)
    except (OSError, RuntimeError, ValueError):  # too long a name, a loop of links, a zero byte
        inside = False
    if not inside:
        raise problem(where, "a file inside the dataset's folder", "a path that leaves it", "correct the row")
    return path


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a published file, whose fields are asked for by name."""

    path: Path
    number: int
    """1 is the first row of the file."""
    values: Mapping[str, Any]
    split: Split = "train"
    """That its file belongs to."""
    index: int = 0
    """Its place in the split: 0 is the first row of the split's first file."""
    private: bool = False
    """Its values may be about a patient: no message quotes them."""
    fault: FindingError | None = None
    """Why the row could not be taken apart."""
    published: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a field, where that is another name."""

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path}, row {self.number}"

    @property
    def place(self) -> str:
        """The same without the folder, for what artifacts keep."""
        return f"{self.path.name}, row {self.number}"

    def shown(self, value: Any) -> str:
        """A value as messages show it."""
        return "another value" if self.private else reprlib.repr(value)

    def value(self, field: str) -> Any:
        """A field as published; refused where the row lacks it."""
        if field not in self.values:
            found = reprlib.repr(sorted(self.values))
            raise problem(self.where, f"a field {field!r}", f"only {found}", "complete the row or remove it")
        return self.values[field]

    def text(self, field: str) -> str:
        """A field as text: white space at its ends stripped, inner runs of it collapsed; numbers are written out.

        A whole number is written without `.0`: pandas turns integers into floats where one of them is missing.
        Null and empty fields are refused.
        """
        text = self.text_or_none(field)
        if text is None:
            raise problem(self.where, f"text in field {self._called(field)!r}", "none", "complete the row or remove it")
        return text

    def text_or_none(self, field: str) -> str | None:
        """The same, with None for a null or empty field."""
        value = self.value(field)
        if value is None:
            return None
        if isinstance(value, float) and math.isnan(value):  # pandas writes it for a missing value
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not _is_unicode(str(value)):
            raise problem(self.where, f"text in field {self._called(field)!r}", self.shown(value), "correct the row")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = " ".join(str(value).split())
        return None if text in NULLS else text

    def choice(self, field: str, choices: Mapping[str, Value], also: Mapping[str, Value] | None = None) -> Value:
        """What a field's text, in lower case, stands for; refused where it is none of the choices.

        `also` holds other forms, which are taken and not offered in the message.
        """
        text = self.text(field)
        known = {**choices, **(also or {})}
        if text.lower() not in known:
            expected = f"one of {', '.join(choices)} in field {self._called(field)!r}"
            raise problem(self.where, expected, self.shown(text), "correct the row")
        return known[text.lower()]

    def _called(self, field: str) -> str:
        """A field's name in the file, for messages."""
        return self.published.get(field, field)


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_rows(path: Path, split: Split = "train") -> list[Row]:
    """The rows of a JSON file, which must be a list of objects and not empty."""
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
    """A JSON value. NaN is read as null: pandas writes it for a missing value."""
    return json.loads(text, parse_constant=lambda _: None)


def as_published(names: Sequence[str], where: str) -> Mapping[str, str]:
    """Columns are called what the file calls them."""
    return {}


def read_parquet(
    path: Path, fields: Sequence[str], optional: Sequence[str] = (), naming: Naming = as_published
) -> Iterator[Row]:
    """The rows of a Parquet file, a few in memory at a time; refused where it lacks one of the fields.

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
    """The rows of a CSV file with a header; refused where that lacks one of the fields or names a column twice.

    Cells are parted by commas, or by semicolons or tabs where the header has more of these. A row with more or fewer
    cells than the header is at fault; a quote that never ends makes the file unreadable.
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
    """What parts the cells of a CSV file, by its first line: spreadsheets write what is usual in their country."""
    return max(",", ";", "\t", key=header.count)


def _refuse_wrong_names(names: Sequence[str], fields: Sequence[str], where: str, expected: str) -> None:
    """Raise FindingError where a table lacks a field, or two of its columns have one name."""
    lacking = next((field for field in fields if field not in names), None)
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if lacking or twice:
        found = f"no field {lacking!r}" if lacking else f"more than one field {reprlib.repr(twice)}"
        raise problem(where, expected, found, "correct the names of its columns, or restore the file as published")


def read_jsonl(path: Path, split: Split = "train") -> Iterator[Row]:
    """The rows of a file with one JSON object a line; a line that is none is a row at fault."""
    for number, line in read_lines(path):
        try:
            values = parse_json(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            values = None
        fault = None
        if not isinstance(values, dict):
            fault = problem(f"{path}, row {number}", "a JSON object", "something else", "correct the row")
            values = {}
        yield Row(path, number, values, split, number - 1, fault=fault)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file that are not blank, numbered from 1."""
    try:
        with path.open("rb") as source:
            yield from enumerate(filter(bytes.strip, source), 1)
    except OSError as error:
        found, remedy = f"an unreadable file ({error.strerror})", "restore the file as published"
        raise problem(str(path), "a text file", found, remedy) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
