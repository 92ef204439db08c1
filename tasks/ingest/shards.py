"""The Hugging Face Parquet layout: a split in one file or several, images inside the rows."""

import re
from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.files import Row, problem, read_parquet
from tasks.ingest.pictures import Picture, read_image

FIELDS = ("image", "question", "answer")


def read_split(folder: Path, split: str) -> Iterator[tuple[int, Row]]:
    """The rows of a split with their index in the split (0 is the first row of the first file); none without files.

    Raises StudyError where one of the split's files is missing: the indices, and so the case ids, would shift.
    """
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    _refuse_incomplete(folder, split, paths)
    index = 0
    for path in paths:
        for row in read_parquet(path, FIELDS):
            yield index, row
            index += 1


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
    """The image of a row."""
    return read_image(image_bytes(row), row.where)
