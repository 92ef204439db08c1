"""`Source`, which every reader returns, and how rows are gathered into it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import StudyError
from tasks.ingest.finding import FindingError, problem
from tasks.ingest.images import Images
from tasks.ingest.pictures import Picture
from tasks.ingest.rows import Row
from tasks.records import Caption, Case, Finding, Image, Split


@dataclass(frozen=True, slots=True)
class Rejected:
    """A published row that cannot be used."""

    file: str
    """Relative to the dataset's folder."""
    row: int
    """1 is the first row of the file."""
    reason: str
    """What was expected and what was found, without any path."""


@dataclass(frozen=True)
class Source:
    """A dataset, whatever its published layout; a dataset of captions has no cases yet."""

    cases: list[Case]
    images: Images
    findings: list[Finding] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """Numbers of rows that were left out, kept or changed in an unexpected way, by what happened."""
    rejected: list[Rejected] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    """Commits of the datasets from the Hugging Face hub."""
    unused: tuple[str, ...] = ()
    """Unknown columns of a hospital's table, which are not read."""

    @property
    def records(self) -> list[Case | Caption]:
        """The cases, then the captions."""
        return [*self.cases, *self.captions]


def rows_of(folder: Path, files: Mapping[str, Split], read: Callable[[Path, Split], Iterable[Row]]) -> Iterator[Row]:
    """The rows of those files that exist, each with the split of its file.

    Only the train file is required: a test split is made where the published one is missing.
    """
    for name, split in files.items():
        if (folder / name).exists():
            yield from read(folder / name, split)


def gather(
    root: Path,
    rows: Iterable[Row],
    make: Callable[[Row], Case | Caption | str],
    read: Callable[[Row], Picture],
    *,
    max_rejected: float = 0.0,
) -> Source:
    """Gather rows into a source: each image is read once, and rows without an answer are left out.

    A row that is faulty, or whose image is, is rejected and does not stop the others.

    Args:
        root: the dataset's folder.
        rows: as published, of all splits.
        make: returns the case or caption of a row (the answer is "" where it has none), or why it is left out.
        read: reads the image of a row.
        max_rejected: the largest share of the rows that may be rejected; at least one row may be, unless it is 0.

    Raises StudyError where more rows are rejected; it quotes the first.
    """
    found = _Found()
    rejected: list[Rejected] = []
    first: FindingError | None = None
    count = 0
    for row in rows:
        count += 1
        try:
            if row.fault:
                raise row.fault
            found.add(row, make(row), read)
        except FindingError as error:
            first = first or error
            rejected.append(Rejected(row.path.relative_to(root).as_posix(), row.number, error.reason))
    allowed = max(int(max_rejected * count), 1) if max_rejected else 0
    if first and len(rejected) > allowed:
        raise StudyError(
            f"{len(rejected)} of {count} rows are unusable, more than dataset.max_rejected={max_rejected:g} allows "
            f"({allowed} of {count}); the first is {first}"
        )
    notes = {note: number for note, number in found.notes.items() if number}
    return Source(found.cases, found.images, captions=found.captions, notes=notes, rejected=rejected)


class _Found:
    """The valid rows so far."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.captions: list[Caption] = []
        self.images = Images()
        self.notes: Counter[str] = Counter()
        self._places: dict[str, str] = {}
        self._triples: set[tuple[str, str, str]] = set()

    def add(self, row: Row, record: Case | Caption | str, read: Callable[[Row], Picture]) -> None:
        """Add a row; raises FindingError where its id occurred before or its image cannot be used."""
        if isinstance(record, str):
            self.notes[record] += 1
            return
        record_id = record.id if isinstance(record, Case) else record.image_id
        if record_id in self._places:
            found = f"{row.quoted(record_id)}, which {self._places[record_id]} has too"
            raise problem(row.where, "an id of its own", found, "remove one of the two rows")
        if isinstance(record, Case) and not record.answer:
            self._places[record_id] = row.place
            self.notes["rows without an answer left out"] += 1
            return
        if record.image_id not in self.images.ids:
            self.images.append(Image(record.image_id, *read(row)))
        self._places[record_id] = row.place
        if isinstance(record, Caption):
            self.captions.append(record)
            return
        triple = (record.image_id, record.question, record.answer)
        self.notes["rows kept that repeat another row's image, question and answer"] += triple in self._triples
        self._triples.add(triple)
        self.cases.append(record)


def check(source: Source) -> None:
    """Raise StudyError for a dataset without training cases or captions, with a repeated case id, or a missing image.

    The error names cases by number only, since the run's record keeps it outside of the hospital.
    """
    if not any(record.split == "train" for record in source.records):
        notes = "".join(f", {note}: {count}" for note, count in source.notes.items())
        captions = f" and {len(source.captions)} captions" if source.captions else ""
        raise StudyError(
            f"Expected training cases, found none among {len(source.cases)} cases{captions}{notes}; "
            "complete the dataset, or loosen the dataset settings that leave rows out."
        )
    places: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(source.cases, 1):
        places[case.id].append(number)
    repeated = next((numbers for numbers in places.values() if len(numbers) > 1), None)
    if repeated:
        cases = ", ".join(map(str, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        raise StudyError(f"Expected an id for each case, found one for cases {cases}; rename all but one of them.")
    every: dict[str, Sequence[Case | Caption]] = {"case": source.cases, "caption": source.captions}
    for noun, records in every.items():
        for number, record in enumerate(records, 1):
            if record.image_id not in source.images.ids:
                raise StudyError(
                    f"Expected an image for {noun} {number} of {len(records)}, found none of that name; add the image."
                )


def summarise(source: Source) -> dict[str, Any]:
    """Counts for the manifest: totals, cases and captions by their properties, and the reader's notes."""

    def count(records: Iterable[Case | Caption], name: str) -> dict[str, int]:
        return dict(sorted(Counter(getattr(record, name) or "not stated" for record in records).items()))

    return {
        "cases": len(source.cases),
        "images": len(source.images),
        "findings": len(source.findings),
        "captions": len(source.captions),
        "rejected": len(source.rejected),
        **{name: count(source.cases, name) for name in ("dataset", "split", "kind", "modality", "organ", "language")},
        "captions_by_split": count(source.captions, "split"),
        "notes": source.notes,
        "revisions": source.revisions,
    }
