"""Reads predictions of other software from a file of JSON lines."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from tasks.errors import StudyError
from tasks.records import Kind

NEEDED = ("id", "prediction", "answer", "kind")


@dataclass(frozen=True, slots=True)
class Line:
    """One prediction with its reference."""

    id: str | int
    prediction: str
    answer: str
    kind: Kind
    options: Mapping[str, str] = field(default_factory=dict)
    """Text of each option by its letter in upper case; options without text are left out."""
    language: str | None = None
    image: str | None = None
    """The bootstrap draws all rows of one image together."""
    confidence: float | None = None
    """From 0 to 1."""


def read_lines(path: Path) -> list[Line]:
    """Read the predictions of a file, skipping blank lines.

    Raises StudyError with the file and the line where something cannot be read.
    """
    try:
        with path.open("rb") as source:
            lines = list(_lines(path, source))
    except OSError as error:
        raise StudyError(f"Expected a file of predictions in {path}, found {error.strerror}: name another.") from None
    if not lines:
        raise StudyError(f"Expected predictions in {path}, found an empty file: write one JSON object a line.")
    return lines


def _lines(path: Path, source: Iterator[bytes]) -> Iterator[Line]:
    seen: dict[str, int] = {}
    for number, raw in enumerate(source, start=1):
        if raw.strip(b"\xef\xbb\xbf \t\r\n"):
            try:
                line = _line(json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse, object_pairs_hook=_once))
                if (first := seen.setdefault(str(line.id), number)) != number:
                    raise _WrongError(f"expected each id once, found that of line {first} again; keep one of the two")
                yield line
            except _WrongError as wrong:
                raise StudyError(f"{path}, line {number}: {wrong}.") from None
            except (ValueError, RecursionError):
                raise StudyError(
                    f"{path}, line {number}: expected one JSON object in UTF-8, found something else; mend the line."
                ) from None


class _WrongError(Exception):
    """What is wrong with a line; the caller adds the file and the line number."""


def _refuse(name: str) -> NoReturn:
    """Refuse NaN and Infinity: Python writes them, and pandas writes NaN for a missing value, but they are not JSON."""
    raise _WrongError(f"expected JSON, found {name}; write null for a missing prediction, or leave the line out")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise _WrongError("expected each field once, found one twice; keep one of the two")
    return found


def _line(value: Any) -> Line:
    if not isinstance(value, dict):
        raise _WrongError(f"expected a JSON object, found {_short(value)}; write {{...}} with {', '.join(NEEDED)}")
    for name in NEEDED:
        if name not in value:
            raise _WrongError(f"expected the field {name}, found {_short(', '.join(value))}; add it")
    if isinstance(value["id"], bool) or not isinstance(value["id"], str | int):
        raise _WrongError(f"expected a text or whole number as id, found {_short(value['id'])}; mend it")
    return Line(
        id=value["id"],
        prediction=_text("prediction", "" if value["prediction"] is None else value["prediction"]),
        answer=_text("answer", value["answer"]),
        kind=_kind(value["kind"]),
        options=_options(value.get("options")),
        language=_optional("language", value),
        image=_optional("image", value),
        confidence=_confidence(value.get("confidence")),
    )


def _text(name: str, value: Any) -> str:
    """Return a text as it is and a number as text: published answers hold both."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _WrongError(f"expected a text or a number as {name}, found {_short(value)}; put it in quotes")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _WrongError(f"expected a number that can be held as {name}, found a greater one; put it in quotes")
        return f"{Decimal(repr(value)):f}"  # 0.00001, not 1e-05
    return str(value)


def _optional(name: str, value: Mapping[str, Any]) -> str | None:
    return None if value.get(name) is None else _text(name, value[name])


def _kind(value: Any) -> Kind:
    kinds: dict[str, Kind] = {"closed": "closed", "open": "open"}
    found = kinds.get(value.strip().lower()) if isinstance(value, str) else None  # published files contain "CLOSED "
    if found is None:
        raise _WrongError(f"expected closed or open as kind, found {_short(value)}; name one of the two")
    return found


def _options(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    letters = [str(name).strip().upper() for name in value] if isinstance(value, dict) else []
    if not letters or len(set(letters)) < len(letters) or not all(len(a) == 1 and "A" <= a <= "Z" for a in letters):
        raise _WrongError(f'expected options as {{"A": "...", "B": "..."}}, found {_short(value)}; mend them')
    texts = (_text("option", "" if text is None else text) for text in value.values())
    return {letter: text for letter, text in zip(letters, texts, strict=True) if text.strip()}


def _confidence(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise _WrongError(f"expected a number from 0 to 1 as confidence, found {_short(value)}; mend or leave it out")
    return value


def _short(value: Any) -> str:
    """A value as JSON, cut short."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
