"""Types and helpers shared by the erasers of all stages.

A stage that stores data of cases in `hospitals/<h>/` has an eraser in `erase.py` of its package, listed in `ERASERS`
under the stage's name. `flows/withdrawn.py` collects these.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tasks.records import Record, write_table
from tasks.store import Folder

Counts = dict[str, int]
"""Number of removed items, by their name in the plural."""


@dataclass(frozen=True)
class Patient:
    """The patient to erase."""

    cases: frozenset[str]
    """Ids of the patient's cases."""
    images: frozenset[str]
    """Ids of the patient's images."""


Eraser = Callable[[Path, Folder, Patient], Counts]
"""Rewrites a stage's files without the patient, from the old folder into the new one, which starts as its copy."""
Erasers = Mapping[str, Eraser | None]
"""Erasers by stage; None if a folder with the patient can only be removed whole, as with trained tensors."""


def rewrite_table(old: Path, new: Folder, name: str, record: type[Record], rows: Iterable[Record]) -> int:
    """Rewrite a table with these rows; returns how many rows fewer it has."""
    with new.open(name) as sink:
        write_table(sink, record, rows)
    before, after = (pq.read_metadata(place / name).num_rows for place in (old, new.path))
    return before - after
