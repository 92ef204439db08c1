"""A hospital's export: one CSV, JSONL or Parquet table of cases, with images inside or beside it.

File names, patients and any other content of a row may identify the patient. Ids are therefore digests or row numbers,
groups are digests, and messages name only the table and the row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tasks.cases.patients import as_integer, patient_digest
from tasks.ingest.columns import Columns
from tasks.ingest.dicom_patient import patient_of
from tasks.ingest.files import read_csv, read_jsonl, read_parquet
from tasks.ingest.finder import Files, find_table
from tasks.ingest.finding import FindingError, problem
from tasks.ingest.modalities import modality_of
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.shards import digest_id, kind_of
from tasks.ingest.source import Source, gather
from tasks.records import Case, Kind, Split

NAME = "table"
SUFFIXES = (".csv", ".jsonl", ".parquet")
UNKNOWN = {"nan", "none", "null", "<na>", "na", "n/a", "nat", "-"}
"""What programs write for a blank cell: in the patient column, these would merge many patients into one."""
REQUIRED = ("image", "question", "answer")
OPTIONAL = ("kind", "modality", "organ", "patient", "split")
KINDS: dict[str, Kind] = {"closed": "closed", "open": "open"}
KIND_FORMS: dict[str, Kind] = {"closed-ended": "closed", "close-ended": "closed", "open-ended": "open"}
SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
SPLIT_FORMS: dict[str, Split] = {
    **dict.fromkeys(("training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "dev", "development"), "validation"),
    **dict.fromkeys(("testing", "testset"), "test"),
}


class _Seen(NamedTuple):
    """An image that was read once."""

    id: str
    patient: str | None
    """The patient stated in its DICOM file."""


def read(root: Path | None, *, language: str, max_rejected: float = 0.0) -> Source:
    """Read the one table in a folder.

    Args:
        root: the folder that holds the table and the images, or the folder around it. A row's `image` is a path below
            it, or the image itself (bytes, or the Hugging Face layout's `bytes` and `path`) in a Parquet table.
        language: of the questions: `zh`, or `en` for anything else.
        max_rejected: the largest share of unusable rows.

    A row without `kind` is closed where its answer is yes or no. A row without `split` is a training case. A row
    without `patient` gets the patient stated in its DICOM file, unless all files state the same one.
    """
    path = find_table(root, NAME, SUFFIXES)
    folder = root or path.parent
    files, columns = Files(path.parent, folder), Columns()
    seen: dict[str, _Seen] = {}
    """The images that were read, by their names in the rows."""
    last: dict[int, tuple[bytes, Picture]] = {}
    """The last row's image, needed twice: as stored, and decoded."""
    stated: dict[str, str] = {}
    """By case, the patient stated only in the image's DICOM file."""

    def read_both(row: Row) -> tuple[bytes, Picture]:
        if row.number not in last:
            last.clear()
            data = _image_of(files, row)
            last[row.number] = data, read_image(data, row.where)
        return last[row.number]

    def make(row: Row) -> Case:
        image = _image_name(row)
        known = seen.get(image) if isinstance(image, str) else None
        if known is None:
            data, picture = read_both(row)
            known = _Seen(digest_id(picture.data), patient_of(data))
        if isinstance(image, str):
            seen[image] = known
        case = _case(row, known.id, "zh" if language == "zh" else "en")
        if case.group is None and known.patient:
            stated[case.id] = known.patient
        return case

    rows = _rows(path, columns)
    source = gather(folder, rows, make, lambda row: read_both(row)[1], max_rejected=max_rejected)
    return replace(_with_patients(source, stated), unused=columns.unused)


def _with_patients(source: Source, stated: Mapping[str, str]) -> Source:
    """Add the patients that only DICOM files state.

    A patient that is the same for all images is ignored: it is a placeholder that a program wrote instead of ids.
    """
    by_image = {case.image_id: stated[case.id] for case in source.cases if case.id in stated}
    if len(by_image) > 1 and len(set(by_image.values())) == 1:
        note = "cases whose DICOM files all state one patient id, taken as of no stated patient"
        return replace(source, notes=source.notes | {note: sum(case.id in stated for case in source.cases)})
    cases = [replace(case, group=stated[case.id]) if case.id in stated else case for case in source.cases]
    return replace(source, cases=cases)


def _rows(path: Path, columns: Columns) -> Iterator[Row]:
    if path.suffix.lower() == ".csv":
        rows = read_csv(path, REQUIRED, naming=columns.known_as)
    elif path.suffix.lower() == ".parquet":
        rows = read_parquet(path, REQUIRED, OPTIONAL, naming=columns.known_as)
    else:
        rows = (_with_known_names(row, columns) for row in read_jsonl(path))
    for row in rows:
        yield replace(row, private=True)


def _with_known_names(row: Row, columns: Columns) -> Row:
    """Rename the fields of a JSON row: each object has its own names."""
    try:
        known = columns.known_as(list(row.values), row.where)
    except FindingError as error:
        return replace(row, values={}, fault=row.fault or error)
    values = {known[name]: value for name, value in row.values.items() if name in known}
    return replace(row, values=values, published={field: name for name, field in known.items()})


def _case(row: Row, image_id: str, language: str) -> Case:
    stated = {name: row.text_or_none(name) if name in row.values else None for name in OPTIONAL}
    patient = stated["patient"] or ""
    answer = as_integer(row.text_or_none("answer") or "")
    return Case(
        id=f"{NAME}:{row.number}",
        image_id=image_id,
        question=row.text("question"),
        answer=answer,
        kind=row.choice("kind", KINDS, KIND_FORMS) if stated["kind"] else kind_of(answer),
        split=row.choice("split", SPLITS, SPLIT_FORMS) if stated["split"] else "train",
        dataset=NAME,
        language=language,
        modality=modality_of(stated["modality"]),
        organ=stated["organ"].lower() if stated["organ"] else None,
        group=patient_digest(patient) if patient and patient.lower() not in UNKNOWN else None,
    )


def _image_name(row: Row) -> str | bytes:
    """The image in a row: the file's name, or the content itself."""
    image = row.value("image")
    if isinstance(image, dict):
        data, image = image.get("bytes"), image.get("path")
        if isinstance(data, bytes):
            return data
        if not isinstance(image, str):
            raise problem(row.where, "an image's bytes or its file's path", "neither", "complete the row or remove it")
    return image if isinstance(image, str | bytes) and image.strip() else row.text("image")


def _image_of(files: Files, row: Row) -> bytes:
    """The bytes of a row's image, or of the file that it names; no message contains the name."""
    image = _image_name(row)
    if isinstance(image, bytes):
        return image
    try:
        return files.find(image, row.where).read_bytes()
    except OSError as error:
        found = f"an unreadable file ({error.strerror})"
        raise problem(row.where, "an image file", found, "correct the row or remove it") from None
