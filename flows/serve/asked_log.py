"""The hospital's own log of what was asked and shown; it never leaves `artifacts/hospitals/<h>/`."""

import json
import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tasks.store import ROOT, alone

LOG = Path("asked/asked.jsonl")


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    when: str
    """UTC, ISO 8601."""
    who: str
    """Name of the token."""
    id: str
    """Id of the answer."""
    question: str
    answer: str | None
    """None if it was withheld, or removed since a patient behind it was forgotten."""
    shown: tuple[str, ...]
    """Ids of the retrieved cases."""
    run: str
    adapter: str
    """Digest of the adapter."""
    similarities: tuple[float, ...] = ()
    """Of each of the retrieved cases."""
    confidence: float = 0.0
    threshold: float = 0.0
    """Confidence below which an answer is withheld."""
    state: Literal["begun", "answered"] = "answered"
    """`begun` before the first word of a streamed answer is sent; the line with the whole answer follows."""
    key: str | None = None
    """Digest of the asker's name and of the key that the asker gave the question, if one was given."""
    content: str | None = None
    """Digest of the image and the question, by that key; it tells nobody without the key what was asked."""
    erased: int = 0
    """How many of the cases shown were of patients who were forgotten since."""


def alone_at(hospital: str) -> AbstractContextManager[None]:
    """Lock what a hospital may show: `fed-rag forget` and the opening, answering and logging of the service exclude
    each other, across processes."""
    return alone(ROOT / "hospitals" / hospital)


def append(hospital: str, entries: Sequence[Entry]) -> None:
    """Append entries and wait until they are on the disk; the caller holds `alone_at`."""
    path = ROOT / "hospitals" / hospital / LOG
    path.parent.mkdir(exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a process was killed while it wrote
                file.write(b"\n")
        file.write(b"".join(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def erase(place: Path, cases: Collection[str], dry: bool = False) -> int:
    """Remove forgotten cases from the log in a hospital's folder; returns in how many entries they were.

    Such an entry loses the cases and its answer, which may repeat theirs, and tells how many cases were removed.
    A line that a killed process left unfinished goes too, since nobody can say what is in it.
    """
    path = place / LOG
    if not path.exists():
        return 0
    kept, changed = [], 0
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        kept_places = [place for place, case in enumerate(entry["shown"]) if case not in cases]
        if gone := len(entry["shown"]) - len(kept_places):
            entry |= {
                name: [entry[name][at] for at in kept_places] for name in ("shown", "similarities") if entry.get(name)
            }
            entry |= {"answer": None, "erased": entry.get("erased", 0) + gone}
            changed += 1
        kept.append(json.dumps(entry, ensure_ascii=False) + "\n")
    if changed and not dry:
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    return changed
