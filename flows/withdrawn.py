"""A hospital's folders, each rewritten without a patient."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from tasks.records import (
    Case,
    FailureModes,
    Finding,
    Image,
    ImagePair,
    Neighbour,
    Prediction,
    Record,
    Saliency,
    Share,
    read_findings,
    read_images,
    read_table,
    write_table,
)
from tasks.store import MANIFEST, ROOT, Folder, find, revising

Counts = dict[str, int]
"""What was removed, by its name in the plural."""


@dataclass(frozen=True)
class Patient:
    """Whose traces are removed."""

    cases: frozenset[str]
    """Ids."""
    images: frozenset[str]
    """Ids."""


class _UntouchedError(Exception):
    """Nothing of the patient was found, or it was only to be counted: the folder stays as it is."""


def rewrite(path: str, gone: Patient, dry: bool = False) -> Counts | None:
    """Put a finished folder without the patient in the place of a hospital's folder, in one step.

    `path` is relative to the artifacts: `hospitals/<h>/<stage>/<key>`. Returns what was removed, empty where the
    folder holds nothing of the patient, and None for a stage of which it is not known how. A `dry` one leaves the
    folder as it is.
    """
    write = WRITERS.get(path.split("/")[-2])
    if write is None:
        return None
    counts: Counts = {}
    with contextlib.suppress(_UntouchedError), revising(path) as folder:
        counts = {name: number for name, number in write(ROOT / path, folder, gone).items() if number}
        if dry or not counts:
            raise _UntouchedError
    return counts


def is_whole(folder: Path) -> bool:
    """Whether every file of a folder is what its manifest says."""
    try:
        find(folder.relative_to(ROOT).as_posix()).verified()
    except (OSError, ValueError, KeyError):
        return False
    return (folder / MANIFEST).is_file()


def _table(old: Path, new: Folder, name: str, record: type[Record], rows: Iterable[Record]) -> int:
    """Write a table anew; returns how many rows it has less."""
    with new.open(name) as sink:
        write_table(sink, record, rows)
    before, after = (pq.read_metadata(place / name).num_rows for place in (old, new.path))
    return before - after


def _cases(old: Path, new: Folder, gone: Patient) -> Counts:
    kept = [case for case in read_table(old / "cases.parquet", Case) if case.id not in gone.cases]
    images = (image for image in read_images(old / "images.parquet") if image.id not in gone.images)
    pairs = read_table(old / "copies.parquet", ImagePair)
    parted = [pair for pair in pairs if pair.image_a not in gone.images and pair.image_b not in gone.images]
    new.summary = new.summary | {"test_choices": sum(case.split == "test" and bool(case.options) for case in kept)}
    return {
        "cases": _table(old, new, "cases.parquet", Case, kept),
        "images": _table(old, new, "images.parquet", Image, images),
        "masks of findings": _masks(old, new, gone),
        "pairs of copies": _table(old, new, "copies.parquet", ImagePair, parted),
    }


def _masks(old: Path, new: Folder, gone: Patient) -> int:
    """Folders of earlier versions hold none."""
    if not (old / "findings.parquet").exists():
        return 0
    kept = (mask for mask in read_findings(old / "findings.parquet") if mask.image_id not in gone.images)
    return _table(old, new, "findings.parquet", Finding, kept)


def _features(old: Path, new: Folder, gone: Patient) -> Counts:
    from tasks.engine.vision import FEATURES, gather_features, load_features

    whole = load_features(old / FEATURES)
    kept = [image for image in whole.starts if image not in gone.images]
    if len(kept) == len(whole.starts):
        return {}
    if kept:
        rest = gather_features({image: (whole, image) for image in kept})
    else:
        rest = replace(whole, rows=whole.rows[:0].clone(), starts={}, grids={})
    new.write(FEATURES, rest.to_bytes())
    new.summary = new.summary | {"images": len(kept), "tokens": len(rest.rows)}
    return {"features of images": len(whole.starts) - len(kept)}


def _encoded(old: Path, new: Folder, gone: Patient) -> Counts:
    """Rows of texts stay where another case has the same text."""
    from tasks.retrieve.encoded import ENCODED, Encoded, load_encoded
    from tasks.text.normalise import normalise

    whole = load_encoded(old / ENCODED)
    cases = [case for path in new.inputs for case in read_table(ROOT / path / "cases.parquet", Case)]
    others = [case for case in cases if case.id not in gone.cases]
    said = {case.question for case in others} | {normalise(case.answer) for case in others if case.split == "train"}
    images = [image for image in whole.image_places if image not in gone.images]
    texts = [text for text in whole.text_places if text in said]
    rest = Encoded(
        whole.images[[whole.image_places[image] for image in images]],
        whole.texts[[whole.text_places[text] for text in texts]],
        {image: place for place, image in enumerate(images)},
        {text: place for place, text in enumerate(texts)},
    )
    new.write(ENCODED, rest.to_bytes())
    new.summary = new.summary | {"images": len(images), "texts": len(texts)}
    return {
        "rows of images": len(whole.image_places) - len(images),
        "rows of texts": len(whole.text_places) - len(texts),
    }


def _library(old: Path, new: Folder, gone: Patient) -> Counts:
    from tasks.retrieve.library import read_library

    whole = read_library(old, mapped=False)
    copies = {
        image: rest
        for image, others in whole.copies.items()
        if image not in gone.images and (rest := [each for each in others if each not in gone.images])
    }
    held, known = len(whole.entries), sum(map(len, whole.copies.values()))
    smaller = replace(whole.removed(gone.cases), copies=copies)
    smaller.write(new.path)
    new.summary = new.summary | {"cases": len(smaller.entries)}
    near = _near(read_table(old / "neighbours.parquet", Neighbour), gone)
    return {
        "cases of the index": held - len(smaller.entries),
        "neighbours": _table(old, new, "neighbours.parquet", Neighbour, near),
        "copies": known - sum(map(len, copies.values())),
    }


def _near(neighbours: Iterable[Neighbour], gone: Patient) -> Iterator[Neighbour]:
    """Those that do not name the patient, nearest first as they were: who stood behind moves up."""
    ranks: Counter[str] = Counter()
    for neighbour in neighbours:
        if neighbour.case_id not in gone.cases and neighbour.neighbour_id not in gone.cases:
            yield replace(neighbour, rank=ranks[neighbour.case_id])
            ranks[neighbour.case_id] += 1


def _predictions(old: Path, new: Folder, gone: Patient) -> Counts:
    """Other patients' answers stay, unless the answer itself is one copied from the patient."""
    rows = read_table(old / "predictions.parquet", Prediction)
    kept = [row for row in rows if row.case_id not in gone.cases and not _is_copied(row, gone)]
    rest = [replace(row, neighbours=tuple(each for each in row.neighbours if each not in gone.cases)) for row in kept]
    mentions = sum(len(row.neighbours) for row in kept) - sum(len(row.neighbours) for row in rest)
    answers = _table(old, new, "predictions.parquet", Prediction, rest)
    return {"answers": answers, "mentions as a shown case": mentions}


def _failures(old: Path, new: Folder, gone: Patient) -> Counts:
    kept = [row for row in read_table(old / "failures.parquet", FailureModes) if row.case_id not in gone.cases]
    return {"failure modes of answers": _table(old, new, "failures.parquet", FailureModes, kept)}


def _saliency(old: Path, new: Folder, gone: Patient) -> Counts:
    """Shares hold numbers of whole prompts: another's answer keeps them though the patient's case was shown with it."""
    maps = [
        row
        for row in read_table(old / "saliency.parquet", Saliency)
        if row.case_id not in gone.cases and row.image_id not in gone.images
    ]
    shares = [row for row in read_table(old / "shares.parquet", Share) if row.case_id not in gone.cases]
    return {
        "maps": _table(old, new, "saliency.parquet", Saliency, maps),
        "shares": _table(old, new, "shares.parquet", Share, shares),
    }


def _is_copied(row: Prediction, gone: Patient) -> bool:
    return row.configuration == "copy_nearest" and bool(gone.cases.intersection(row.neighbours))


WRITERS: dict[str, Callable[[Path, Folder, Patient], Counts]] = {
    "cases": _cases,
    "features": _features,
    "encoded": _encoded,
    "library": _library,
    "failures": _failures,
    "saliency": _saliency,
    **dict.fromkeys(("predictions", "baselines", "reliance", "calibration"), _predictions),
}
"""By stage."""
