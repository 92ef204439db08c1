"""What the erasers of all stages share: whose traces go, what was removed, and tables without some of their rows.

A stage that leaves data of cases in `hospitals/<h>/` has an eraser in its package's `erase.py`, by the stage's name in
`ERASERS` there. `flows/withdrawn.py` collects these.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tasks.records import Record, write_table
from tasks.store import Folder

Counts = dict[str, int]
"""What was removed, by its name in the plural."""


@dataclass(frozen=True)
class Patient:
    """Whose traces are removed."""

    cases: frozenset[str]
    """Ids."""
    images: frozenset[str]
    """Ids."""


Eraser = Callable[[Path, Folder, Patient], Counts]
"""Writes a stage's files anew without the patient: from the old folder into the new one, which begins as its copy."""
Erasers = Mapping[str, Eraser | None]
"""By stage; None where a folder that was made with the patient can only be removed whole, as trained tensors."""


def rewrite_table(old: Path, new: Folder, name: str, record: type[Record], rows: Iterable[Record]) -> int:
    """Write a table anew; returns how many rows it has less."""
    with new.open(name) as sink:
        write_table(sink, record, rows)
    before, after = (pq.read_metadata(place / name).num_rows for place in (old, new.path))
    return before - after
