"""The record of promotions, rollbacks and erasures: lines that are only ever added, each bound to the one before.

`artifacts/promotions.jsonl` has one JSON object a line. `previous` is the SHA-256 of the line before, so that whoever
reads the record notices a line that was changed or removed.
"""

import getpass
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from tasks.errors import StudyError
from tasks.store import ROOT

Kind = Literal["promotion", "override", "refusal", "rollback", "erasure"]
FIRST = "0" * 64
"""What stands in place of a digest before the first line."""


def place() -> Path:
    """Where the record is."""
    return ROOT / "promotions.jsonl"


def append(kind: Kind, because: str, **more: Any) -> dict[str, Any]:
    """Add an entry, with the time, the user's name and the digest of the line before; returns it.

    Raises StudyError if the record was changed since it was written.
    """
    ROOT.mkdir(exist_ok=True)
    with FileLock(ROOT / ".promotions.lock"):
        entries = read()
        entry = {"kind": kind, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "by": _author(), "because": because}
        entry |= more | {"previous": _digest(_line(entries[-1])) if entries else FIRST}
        with place().open("a", encoding="utf-8") as file:
            file.write(_line(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return entry


def read() -> list[dict[str, Any]]:
    """All entries, the oldest first. Raises StudyError if one was changed or removed."""
    if not place().exists():
        return []
    before, entries = FIRST, list[dict[str, Any]]()
    for number, line in enumerate(place().read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = dict(json.loads(line))
        except (ValueError, TypeError):
            entry = {}
        if entry.get("previous") != before:
            raise StudyError(
                f"Expected {place()} as it was written, found line {number} changed or one before it removed: "
                "put the record back from a copy."
            )
        entries.append(entry)
        before = _digest(line)
    return entries


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False)


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())
