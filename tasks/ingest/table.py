"""A hospital's own export: one CSV, JSONL or Parquet table of cases, images inside it or beside it.

File names, patients and whatever else stands in a row may tell who the patient is. Ids are therefore digests or row
numbers, groups are digests, and messages name the table and the row only.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tasks.ingest.files import Row, find_root, problem, read_csv, read_jsonl, read_parquet, resolve
from tasks.ingest.modalities import modality_of
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.shards import digest_id, kind_of
from tasks.ingest.source import Source, gather
from tasks.records import Case, Kind, Split

NAME = "table"
LAYOUTS = ("*.csv", "*.jsonl", "*.parquet")
REQUIRED = ("image", "question", "answer")
OPTIONAL = ("kind", "modality", "organ", "patient", "split")
KINDS: dict[str, Kind] = {"closed": "closed", "open": "open"}
SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}


def read(root: Path | None, *, language: str, max_rejected: float = 0.0) -> Source:
    """Read the one table in a folder.

    Args:
        root: the folder that holds the table and the images. A row's `image` is a path below it, or the image itself
            (bytes, or the Hugging Face layout's `bytes` and `path`) in a Parquet table.
        language: of the questions: `zh`, or `en` for anything else.
        max_rejected: the largest share of unusable rows.

    A row without `kind` is closed where its answer is yes or no; one without `split` is a training case.
    """
    folder, _ = find_root(root, NAME, LAYOUTS)
    tables = [path for layout in LAYOUTS for path in sorted(folder.glob(layout))]
    if len(tables) > 1:
        raise problem(str(folder), "one table", str(len(tables)), "leave the one to be read and move the others")
    ids: dict[str, str] = {}
    """Of the images that were read, by what the rows call them."""
    last: dict[int, Picture] = {}
    """The last row's image, which is asked for twice."""

    def read_picture(row: Row) -> Picture:
        if row.number not in last:
            last.clear()
            last[row.number] = read_image(_image_of(folder, row), row.where)
        return last[row.number]

    def make(row: Row) -> Case:
        name = row.value("image")
        known = ids.get(name) if isinstance(name, str) else None
        image_id = known or digest_id(read_picture(row).data)
        if isinstance(name, str):
            ids[name] = image_id
        return _case(row, image_id, "zh" if language == "zh" else "en")

    return gather(folder, _rows(tables[0]), make, read_picture, max_rejected=max_rejected)


def _rows(path: Path) -> Iterator[Row]:
    rows = {
        ".csv": lambda: read_csv(path, REQUIRED),
        ".jsonl": lambda: read_jsonl(path),
        ".parquet": lambda: read_parquet(path, REQUIRED, OPTIONAL),
    }
    for row in rows[path.suffix]():
        yield replace(row, private=True)


def _case(row: Row, image_id: str, language: str) -> Case:
    stated = {name: row.text_or_none(name) if name in row.values else None for name in OPTIONAL}
    answer = row.text_or_none("answer") or ""
    return Case(
        id=f"{NAME}:{row.number}",
        image_id=image_id,
        question=row.text("question"),
        answer=answer,
        kind=row.choice("kind", KINDS) if stated["kind"] else kind_of(answer),
        split=row.choice("split", SPLITS) if stated["split"] else "train",
        dataset=NAME,
        language=language,
        modality=modality_of(stated["modality"]),
        organ=stated["organ"].lower() if stated["organ"] else None,
        group=hashlib.sha256(stated["patient"].encode()).hexdigest()[:16] if stated["patient"] else None,
    )


def _image_of(folder: Path, row: Row) -> bytes:
    """The image that a row holds, or the content of the file that it names; no message tells the name."""
    image = row.value("image")
    image = image.get("bytes") if isinstance(image, dict) else image
    if isinstance(image, bytes):
        return image
    name, where = image if isinstance(image, str) else row.text("image"), row.where
    remedy = "correct the row or remove it"
    try:
        return resolve(folder, name, where=where).read_bytes()
    except FileNotFoundError:
        raise problem(where, "an image file", "no such file", remedy) from None
    except OSError as error:
        raise problem(where, "an image file", f"an unreadable file ({error.strerror})", remedy) from None
