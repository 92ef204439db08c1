"""The Hugging Face Parquet layout: each split in one or several files, with images inside the rows."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from tasks.ingest.files import read_parquet
from tasks.ingest.finding import problem
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.source import Source, gather
from tasks.records import Case, Kind, Split

LAYOUTS = ("data/train-*.parquet", "train-*.parquet")
FIELDS = ("image", "question", "answer")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def read_shards(folder: Path, dataset: str, max_rejected: float) -> Source:
    """Read a dataset whose rows hold image, question and answer, without row ids, image names or answer types."""

    def make(row: Row) -> Case:
        answer = row.text_or_none("answer") or ""
        return Case(
            id=f"{dataset}:{row.split}:{row.index}",
            image_id=digest_id(image_bytes(row)),
            question=row.text("question"),
            answer=answer,
            kind=kind_of(answer),
            split=row.split,
            dataset=dataset,
            language="en",
        )

    return gather(folder, read_splits(folder, FIELDS), make, read_row_image, max_rejected=max_rejected)


def read_splits(folder: Path, fields: Sequence[str]) -> Iterator[Row]:
    """Read the rows of all splits that have files, each with its index in its split.

    Raises StudyError where a file of a split is missing: the indices, and with them the case ids, would shift.
    """
    for split in SPLITS:
        paths = sorted(folder.glob(f"{split}-*.parquet"))
        _refuse_incomplete(folder, split, paths)
        index = count()
        for path in paths:
            for row in read_parquet(path, fields):
                yield replace(row, split=split, index=next(index))


def digest_id(data: bytes) -> str:
    """The id of an image without a name; equal bytes give equal ids."""
    return hashlib.sha256(data).hexdigest()[:16]


def kind_of(answer: str) -> Kind:
    """The kind of a question by its answer, for datasets that do not state it: closed for yes and no."""
    return "closed" if answer.lower() in ("yes", "no") else "open"


def _refuse_incomplete(folder: Path, split: str, paths: list[Path]) -> None:
    for path in paths:
        match = re.search(r"-of-(\d+)", path.name)
        if match and int(match[1]) != len(paths):
            expected = f"the {int(match[1])} files of the {split} split that {path.name} speaks of"
            raise problem(str(folder), expected, str(len(paths)), "restore the files of one published version")


def image_bytes(row: Row) -> bytes:
    """The bytes of a row's image, as published."""
    image = row.value("image")
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes):
        expected, found = "image bytes in field 'image'", "none"
        raise problem(row.where, expected, found, "restore the file as published, with its images inside")
    return data


def read_row_image(row: Row) -> Picture:
    """Read the image of a row."""
    return read_image(image_bytes(row), row.where)
