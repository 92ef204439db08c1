"""What the tables of a comparison say of test images that a base was trained on."""

from collections.abc import Sequence

from tasks.compare.cells import SPLITS
from tasks.records.comparison import ComparisonDocument

CONFIGURATIONS = "configurations"
"""The part of a comparison that is no sweep."""


def split_note(document: ComparisonDocument, split: str) -> str:
    """What the tables of a split say; empty if no configuration's base has seen a test image of it."""
    trained = {each["name"]: each["label"] for each in document["configurations"] if each["trained"]}
    return _note(document, CONFIGURATIONS, split, trained)


def headline_note(document: ComparisonDocument) -> str:
    """What the table of all splits says: the same once, or each split's note after its name."""
    notes = {each["name"]: split_note(document, each["name"]) for each in document["splits"] if not each["same_as"]}
    if len(set(notes.values())) == 1:
        return next(iter(notes.values()))
    return " ".join(f"{SPLITS[name].capitalize()} split: {note}" for name, note in notes.items() if note)


def sweep_note(document: ComparisonDocument, sweep: str, points: Sequence[str]) -> str:
    """What the table of a sweep says; `points` are its labels."""
    return _note(document, sweep, document["splits"][0]["name"], {point: point for point in points})


def _note(document: ComparisonDocument, part: str, split: str, called: dict[str, str]) -> str:
    """The sentences of a part, each after what it holds of, unless that is the whole part."""
    found = [row for row in document["seen"] if (row["part"], row["split"]) == (part, split)]
    return " ".join(
        row["sentence"]
        if set(row["names"]) >= called.keys()
        else f"{', '.join(called[name] for name in row['names'])}: {row['sentence']}"
        for row in found
    )
