"""One row of a published file, whose fields are read by name and checked when they are read."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tasks.ingest.finding import FindingError, problem
from tasks.records import Split

NULLS = ("", "NULL")
"""Texts that stand for null; VQA-RAD writes both `"NULL"` and null."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a published file, whose fields are read by name."""

    path: Path
    number: int
    """1 is the first row of the file."""
    values: Mapping[str, Any]
    split: Split = "train"
    """Split of its file."""
    index: int = 0
    """Its index in the split: 0 is the first row of the split's first file."""
    private: bool = False
    """Whether its values may be about a patient; no message quotes them."""
    fault: FindingError | None = None
    """Why the row could not be parsed."""
    published: Mapping[str, str] = field(default_factory=dict)
    """Name of a field in the file, where it differs."""

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path}, row {self.number}"

    @property
    def place(self) -> str:
        """File name and row, without the folder, for artifacts."""
        return f"{self.path.name}, row {self.number}"

    def quoted(self, value: Any) -> str:
        """A value as shown in messages."""
        return "another value" if self.private else reprlib.repr(value)

    def value(self, field: str) -> Any:
        """A field as published; refused where it is missing."""
        if field not in self.values:
            found = reprlib.repr(sorted(self.values))
            raise problem(self.where, f"a field {field!r}", f"only {found}", "complete the row or remove it")
        return self.values[field]

    def text(self, field: str) -> str:
        """A field as text: white space is stripped at the ends and collapsed inside; numbers are written out.

        A whole number is written without `.0`: pandas turns integers into floats where one of them is missing. Null and
        empty fields are refused.
        """
        text = self.text_or_none(field)
        if text is None:
            raise problem(self.where, f"text in field {self._called(field)!r}", "none", "complete the row or remove it")
        return text

    def text_or_none(self, field: str) -> str | None:
        """Like `text`, with None for a null or empty field."""
        value = self.value(field)
        if value is None:
            return None
        if isinstance(value, float) and math.isnan(value):  # pandas writes it for a missing value
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not _is_unicode(str(value)):
            raise problem(self.where, f"text in field {self._called(field)!r}", self.quoted(value), "correct the row")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = " ".join(str(value).split())
        return None if text in NULLS else text

    def choice(self, field: str, choices: Mapping[str, Value], also: Mapping[str, Value] | None = None) -> Value:
        """The value of a field's lower-case text in `choices`; refused where it is not among them.

        `also` holds other accepted forms, which the message does not list.
        """
        text = self.text(field)
        known = {**choices, **(also or {})}
        if text.lower() not in known:
            expected = f"one of {', '.join(choices)} in field {self._called(field)!r}"
            raise problem(self.where, expected, self.quoted(text), "correct the row")
        return known[text.lower()]

    def _called(self, field: str) -> str:
        """The name of a field in the file, for messages."""
        return self.published.get(field, field)


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
