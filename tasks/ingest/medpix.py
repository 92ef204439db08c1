"""MedPix 2.0: CT and MR images of teaching cases, with caption, sex and age of the patient, and diagnosis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.ingest.files import read_jsonl, read_rows
from tasks.ingest.finding import problem
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.modalities import modality_of
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.source import Source, gather
from tasks.records import Caption, Split

NAME = "medpix"
SPLITS: dict[str, Split] = {"train": "train", "dev": "validation", "test": "test"}
PLACEHOLDER = "Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS."


PLACE = "Bethesda, MD"
"""Location of two images: it is where their authors work, not a part of the body."""


def read(root: Path | None, *, max_rejected: float = 0.0) -> Source:
    """Read the captions of MedPix 2.0; the images of a case are one group.

    Args:
        root: the folder that holds `Descriptions.json`, `Case_topic.json`, `images` and `splitted_dataset`.
        max_rejected: the largest share of unusable rows.

    A caption's text is the published one, followed by a sentence with the case's diagnosis.
    """
    folder, _ = find_root(root, NAME, ("Descriptions.json", "MedPix-2-0/Descriptions.json"))
    diagnoses = {row.text("U_id"): _diagnosis(row) for row in read_rows(folder / "Case_topic.json")}
    splits = {
        row.text("U_id"): split
        for name, split in SPLITS.items()
        if (path := folder / "splitted_dataset" / f"data_{name}.jsonl").exists()
        for row in read_jsonl(path)
        if not row.fault
    }

    def make(row: Row) -> Caption | str:
        case = row.text("U_id")
        if case not in splits or case not in diagnoses:
            expected = "a case of Case_topic.json that splitted_dataset puts into a split"
            raise problem(row.where, expected, f"case {case!r}", "restore the files as published")
        return _caption(row, splits[case], diagnoses[case])

    def read_picture(row: Row) -> Picture:
        # The published name has no suffix.
        return read_image(resolve(folder, "images", f"{row.text('image')}.png", where=row.where), row.where)

    rows = read_rows(folder / "Descriptions.json")
    return gather(folder, rows, make, read_picture, max_rejected=max_rejected)


def _caption(row: Row, split: Split, diagnosis: str | None) -> Caption | str:
    described = _inner(row, "Description")
    text = described.text_or_none("Caption")
    if text is None or text == PLACEHOLDER:
        return "images without a caption of their own left out"
    sex = described.text_or_none("Sex")
    age, organ, plane = described.text_or_none("Age"), row.text_or_none("Location"), described.text_or_none("Plane")
    return Caption(
        image_id=row.text("image"),
        text=_sentences(text, f"Diagnosis: {diagnosis}") if diagnosis else text,
        split=split,
        dataset=NAME,
        language="en",
        modality=modality_of(row.text_or_none("Type")),
        plane=plane.lower() if plane else None,
        organ=organ.lower() if organ and organ != PLACE else None,
        sex=sex.lower() if sex in ("male", "female") else None,
        age=age if age != "0" else None,  # 0 means not stated: adults have it too
        group=row.text("U_id"),
    )


def _sentences(*texts: str) -> str:
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in texts)


def _diagnosis(row: Row) -> str | None:
    diagnosis = _inner(row, "Case").text_or_none("Case Diagnosis") if "Case" in row.values else None
    return diagnosis.removeprefix("Diagnosis:").strip() or None if diagnosis else None


def _inner(row: Row, field: str) -> Row:
    """An object inside a row, as a row."""
    values: Any = row.value(field)
    if not isinstance(values, Mapping):
        raise problem(row.where, f"an object in field {field!r}", row.quoted(values), "correct the row")
    return Row(row.path, row.number, values, row.split)
