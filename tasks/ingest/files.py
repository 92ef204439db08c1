"""Guarded reading of published files: whatever is wrong with them becomes one sentence that says where.

Published datasets are other people's files: downloads break off, archives unpack into another folder, rows lack
fields or name files outside the dataset. Every such finding is a StudyError, made by `problem`.
"""

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StudyError

NULLS = ("", "NULL")
"""Texts that stand for null; VQA-RAD writes both `"NULL"` and null."""
BATCH_ROWS = 64
"""Parquet rows held at once: a row holds a whole image."""

Value = TypeVar("Value")


def problem(where: str, expected: str, found: str, remedy: str) -> StudyError:
    """The error for one finding: `where: expected ..., found ...; remedy.`"""
    return StudyError(f"{where}: expected {expected}, found {found}; {remedy}.")


def find_root(root: Path | None, dataset: str, layouts: Sequence[str]) -> tuple[Path, str]:
    """The folder that holds a published dataset, and which of its layouts that is.

    Args:
        root: the folder the user named.
        dataset: its name, for the message.
        layouts: for each layout the pattern, relative to root, of a file that only this layout has.

    Returns the folder that holds the first file found, and the pattern that found it.
    """
    expected = f"the {dataset} dataset with one of " + ", ".join(f"`{layout}`" for layout in layouts)
    remedy = "set dataset.root to the folder that holds the dataset as published"
    if root is None:
        raise problem("dataset.root", expected, "no folder", remedy)
    try:
        if not root.is_dir():
            raise problem(str(root), expected, "a file" if root.exists() else "no such folder", remedy)
        for layout in layouts:
            for path in root.glob(layout):
                return path.parent, layout
    except OSError as error:
        raise problem(str(root), expected, f"an unreadable folder ({error.strerror})", remedy) from None
    raise problem(str(root), expected, "none of them", remedy)


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
        raise problem(where, f"a file inside {root}", reprlib.repr("/".join(parts)), "correct the row")
    return path


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a published file, whose fields are asked for by name."""

    path: Path
    number: int
    """1 is the first row of the file."""
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path}, row {self.number}"

    def value(self, field: str) -> Any:
        """A field as published; refused where the row lacks it."""
        if field not in self.values:
            found = reprlib.repr(sorted(self.values))
            raise problem(self.where, f"a field {field!r}", f"only {found}", "complete the row or remove it")
        return self.values[field]

    def text(self, field: str) -> str:
        """A field as text: white space at its ends stripped, inner runs of it collapsed; numbers are written out.

        Null and empty fields are refused.
        """
        text = self.text_or_none(field)
        if text is None:
            raise problem(self.where, f"text in field {field!r}", "none", "complete the row or remove it")
        return text

    def text_or_none(self, field: str) -> str | None:
        """The same, with None for a null or empty field."""
        value = self.value(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not _is_unicode(str(value)):
            raise problem(self.where, f"text in field {field!r}", reprlib.repr(value), "correct the row")
        text = " ".join(str(value).split())
        return None if text in NULLS else text

    def choice(self, field: str, choices: Mapping[str, Value]) -> Value:
        """What a field's text, in lower case, stands for; refused where it is none of the choices."""
        text = self.text(field)
        if text.lower() not in choices:
            expected = f"one of {', '.join(choices)} in field {field!r}"
            raise problem(self.where, expected, reprlib.repr(text), "correct the row")
        return choices[text.lower()]


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON file, which must be a list of objects and not empty."""
    expected, remedy = "a JSON list of objects", "restore the file as published"
    try:
        # NaN is how pandas writes a missing value.
        values = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
    except OSError as error:
        raise problem(str(path), expected, f"an unreadable file ({error.strerror})", remedy) from None
    except (ValueError, RecursionError) as error:
        raise problem(str(path), expected, f"something else ({_one_line(error)})", remedy) from None
    if not isinstance(values, list) or not values:
        raise problem(str(path), expected, f"{'an empty' if values == [] else 'a'} {type(values).__name__}", remedy)
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise problem(f"{path}, row {number}", "an object", reprlib.repr(value), remedy)
    return [Row(path, number, value) for number, value in enumerate(values, 1)]


def read_parquet(path: Path, fields: Sequence[str]) -> Iterator[Row]:
    """The rows of a Parquet file, a few in memory at a time; refused where it lacks one of the fields."""
    expected, remedy = f"a Parquet table with {', '.join(fields)}", "restore the file as published"
    try:
        with pq.ParquetFile(path) as table:
            missing = [field for field in fields if field not in table.schema_arrow.names]
            if missing:
                raise problem(f"{path}, row 1", expected, f"no field {missing[0]!r}", remedy)
            number = 0
            for batch in table.iter_batches(BATCH_ROWS, columns=list(fields)):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(path, number, values)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise problem(str(path), expected, f"something else ({_one_line(error)})", remedy) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
