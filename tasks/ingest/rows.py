"""One row of a published file, whose fields are asked for by name and checked as they are read."""

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
