"""What every reader returns, and how its rows come together."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import StudyError
from tasks.ingest.files import Row, problem
from tasks.ingest.pictures import Picture
from tasks.records import Caption, Case, Finding, Image


@dataclass(frozen=True)
class Source:
    """A dataset, whatever its published layout was."""

    cases: list[Case]
    images: list[Image]
    findings: list[Finding] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """How many rows were left out, kept or changed against expectation, by what happened to them."""


def gather(
    rows: Iterable[tuple[Row, Case]], read: Callable[[Row], Picture], notes: Mapping[str, int] | None = None
) -> Source:
    """The source that rows make up: each image read once, rows without an answer left out.

    Args:
        rows: the published rows, with the case that each one is; the answer is "" where the row has none.
        read: the image of a row.
        notes: counts of what the reader did before.

    Raises StudyError where two rows have the same case id.
    """
    cases: list[Case] = []
    images: dict[str, Image] = {}
    places: dict[str, str] = {}
    counts = Counter(notes or {})
    triples: set[tuple[str, str, str]] = set()
    for row, case in rows:
        if case.id in places:
            found = f"{case.id!r}, which {places[case.id]} has too"
            raise problem(row.where, "an id of its own", found, "remove one of the two rows")
        places[case.id] = row.where
        if not case.answer:
            counts["rows without an answer left out"] += 1
            continue
        triple = (case.image_id, case.question, case.answer)
        counts["rows kept that repeat another row's image, question and answer"] += triple in triples
        triples.add(triple)
        if case.image_id not in images:
            images[case.image_id] = Image(case.image_id, *read(row))
        cases.append(case)
    return Source(cases, list(images.values()), notes={note: count for note, count in counts.items() if count})


def check(source: Source) -> None:
    """Raise StudyError for a dataset without training cases, a repeated case id, or a case whose image is absent."""
    if not any(case.split == "train" for case in source.cases):
        notes = "".join(f", {note}: {count}" for note, count in source.notes.items())
        raise StudyError(
            f"Expected training cases, found none among {len(source.cases)} cases{notes}; "
            "complete the dataset, or loosen the dataset settings that leave rows out."
        )
    case_id, count = Counter(case.id for case in source.cases).most_common(1)[0]
    if count > 1:
        raise StudyError(f"Expected an id for each case, found {case_id!r} for {count} of them; rename all but one.")
    known = {image.id for image in source.images}
    for case in source.cases:
        if case.image_id not in known:
            raise StudyError(f"Expected the image {case.image_id!r} of case {case.id!r}, found none; add the image.")


def summarise(source: Source) -> dict[str, Any]:
    """Counts for the manifest: cases, images, findings and captions, cases by what they are, and the reader's notes."""

    def count(name: str) -> dict[str, int]:
        values = Counter(getattr(case, name) or "not stated" for case in source.cases)
        return dict(sorted(values.items()))

    return {
        "cases": len(source.cases),
        "images": len(source.images),
        "findings": len(source.findings),
        "captions": len(source.captions),
        **{name: count(name) for name in ("split", "kind", "modality", "organ", "language")},
        "notes": source.notes,
    }
