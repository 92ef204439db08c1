"""A hospital's private library: its training cases in a FAISS index, and the rules of which cases a query may see."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.records import Case, ImagePair, Neighbour
from tasks.retrieve.entries import Entries, make_entries, read_entries
from tasks.retrieve.index import Index, build_index, read_index
from tasks.retrieve.rows import Rows

ENTRIES, RULES = "entries.parquet", "library.json"
BEYOND = 256
"""Most extra neighbours that a joint search adds for hidden cases; queries with more hidden cases may run alone."""


@dataclass(frozen=True)
class Library:
    """An index and its cases. A search never returns cases of the query's image, of its copies, or of its patient."""

    index: Index
    entries: Entries
    hide_patient: bool = True
    """Whether cases of the query's patient are hidden."""
    copies: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The copies of each image that has any, by image id."""

    @property
    def kind(self) -> str:
        """`flat`, `ivf` or `hnsw`."""
        return self.index.kind

    def hidden(self, case: Case) -> set[int]:
        """The numbers of the library's cases that are hidden from this query."""
        found = set(self.entries.by_image.of(case.image_id))
        for copy in self.copies.get(case.image_id, ()):
            found.update(self.entries.by_image.of(copy))
        if self.hide_patient and case.group is not None:
            found.update(self.entries.by_group.of(case.group))
        return found

    def nearest(self, rows: Rows, cases: Sequence[Case], depth: int) -> list[tuple[list[float], list[int]]]:
        """Inner products and numbers of each query's nearest cases that are not hidden, nearest first.

        Returns `depth` per query, and fewer only if the library has no more that may be shown.

        Args:
            rows: unit rows of the queries, `(n, d)`.
            cases: the queries.
            depth: neighbours wanted.

        Raises ValueError if the numbers of rows and cases differ.
        """
        if len(rows) != len(cases):
            raise ValueError(f"Expected a row for each of {len(cases)} queries, found {len(rows)}.")
        held = len(self.entries)
        if not (depth and held and len(rows)):
            return [([], []) for _ in cases]
        barred = [self.hidden(case) for case in cases]
        most = max(map(len, barred))
        similarities, numbers = self.index.search(rows, min(depth + min(most, BEYOND), held))
        found = []
        for place, (near, those, hidden) in enumerate(
            zip(similarities.tolist(), numbers.tolist(), barred, strict=True)
        ):
            if those[-1] < 0 or not hidden.isdisjoint(those):
                near, those = self._without_hidden(rows[place : place + 1], near, those, hidden, depth)
            found.append((near[:depth], those[:depth]))
        return found

    def _without_hidden(
        self, row: Rows, near: list[float], those: list[int], hidden: set[int], depth: int
    ) -> tuple[list[float], list[int]]:
        """Drop the hidden cases from what was found for one row `(1, d)`; search all cases if too few are left."""
        kept = [place for place, number in enumerate(those) if number >= 0 and number not in hidden]
        if len(kept) < min(depth, len(self.entries) - len(hidden)):
            every, numbers = self.index.search_all(row, depth, hidden)
            return every[0].tolist(), numbers[0].tolist()
        return [near[place] for place in kept], [those[place] for place in kept]

    def search(self, rows: Rows, cases: Sequence[Case], depth: int) -> list[list[Neighbour]]:
        """As `nearest`, but returns `Neighbour` records with ranks and case ids."""
        found = self.nearest(rows, cases, depth)
        names = iter(self.entries.case_ids([number for _, numbers in found for number in numbers]))
        return [
            [
                Neighbour(case.id, rank, next(names), min(1.0, max(-1.0, near)))  # rounding leaves the range
                for rank, near in enumerate(similarities)
            ]
            for case, (similarities, _) in zip(cases, found, strict=True)
        ]

    def added(self, rows: Rows, cases: Sequence[Case]) -> "Library":
        """The library plus training cases with unit rows `(n, d)`; changes the index, which must be in memory.

        Raises ValueError for a case that is not in the training split, or is already in the library.
        """
        _refuse_others(rows, cases)
        if len(self.entries.numbers_of([case.id for case in cases])):
            raise ValueError("Expected new cases, found one that is in the library.")
        entries = self.entries.and_cases(cases)
        self.index.add(rows, entries.numbers[len(self.entries) :])
        return Library(self.index, entries, self.hide_patient, self.copies)

    def removed(self, case_ids: Collection[str]) -> "Library":
        """The library without some cases; changes the index, which must be in memory. Ignores unknown cases."""
        numbers = self.entries.numbers_of(case_ids)
        index = self.index.without(numbers) if len(numbers) else self.index
        return Library(index, self.entries.without(numbers), self.hide_patient, self.copies)

    def write(self, folder: Path) -> None:
        """Write the index, `entries.parquet` and `library.json` into a folder."""
        self.index.write(folder)
        self.entries.write(folder / ENTRIES)
        copies = {image: sorted(others) for image, others in sorted(self.copies.items())}
        rules = json.dumps({"hide_patient": self.hide_patient, "copies": copies}, indent=2, ensure_ascii=False)
        (folder / RULES).write_text(rules + "\n", encoding="utf-8")


def build_library(
    rows: Rows,
    cases: Sequence[Case],
    kind: str = "auto",
    hide_patient: bool = True,
    copies: Mapping[str, Collection[str]] | None = None,
) -> Library:
    """Build a library of training cases and their unit rows `(n, d)`, in the order given; `kind` as in `build_index`.

    Raises ValueError for a case that is not in the training split.
    """
    _refuse_others(rows, cases)
    entries = make_entries(cases)
    return Library(build_index(np.ascontiguousarray(rows), entries.numbers, kind), entries, hide_patient, copies or {})


def read_library(folder: Path, mapped: bool = True) -> Library:
    """Read a library that `write` wrote; it can be changed only if it is not `mapped`."""
    rules = json.loads((folder / RULES).read_text(encoding="utf-8"))
    return Library(read_index(folder, mapped), read_entries(folder / ENTRIES), rules["hide_patient"], rules["copies"])


def copies_by_image(pairs: Iterable[ImagePair], hide: str) -> dict[str, set[str]]:
    """The copies of each image that has any; near-duplicates count only if `hide` is `near_duplicate`."""
    copies: dict[str, set[str]] = {}
    for pair in pairs:
        if hide == "near_duplicate" or pair.relation in ("identical_bytes", "identical_pixels"):
            copies.setdefault(pair.image_a, set()).add(pair.image_b)
            copies.setdefault(pair.image_b, set()).add(pair.image_a)
    return copies


def _refuse_others(rows: Rows, cases: Sequence[Case]) -> None:
    if len(rows) != len(cases):
        raise ValueError(f"Expected a row for each of {len(cases)} cases, found {len(rows)}.")
    other = next((case for case in cases if case.split != "train"), None)
    if other is not None:
        raise ValueError(f"Expected training cases alone, found {other.id} of the {other.split} split.")
