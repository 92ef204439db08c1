"""ROCOv2: captions and concepts of radiology figures, in its authors' layout or the Hugging Face layout."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tasks.ingest.files import read_csv
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.shards import LAYOUTS, read_row_image, read_splits
from tasks.ingest.source import Source, gather
from tasks.records import Caption, Split

NAME = "rocov2"
CAPTIONS = "train_captions.csv"
SPLITS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}
MODALITIES = {
    "C0040405": "ct",
    "C0024485": "mri",
    "C1306645": "x-ray",
    "C0041618": "ultrasound",
    "C0002978": "angiography",
    "C0032743": "pet",
    "C1699633": "pet/ct",
}
"""Concepts for the modality, which the authors assigned by hand."""


def read(root: Path | None, *, max_rejected: float = 0.0) -> Source:
    """Read ROCOv2 in the layout found.

    Args:
        root: the folder that holds `train_captions.csv` and `train`, or `data/train-*.parquet`.
        max_rejected: the largest share of unusable rows.
    """
    folder, layout = find_root(root, NAME, (CAPTIONS, *LAYOUTS))
    if layout != CAPTIONS:
        rows = read_splits(folder, ("image", "image_id", "caption", "cui"))
        return gather(folder, rows, _hugging_face_caption, read_row_image, max_rejected=max_rejected)
    names = {split: name for name, split in SPLITS.items()}

    def read_picture(row: Row) -> Picture:
        path = resolve(folder, names[row.split], f"{row.text('ID')}.jpg", where=row.where)
        return read_image(path, row.where)

    return gather(folder, _rows(folder), _caption, read_picture, max_rejected=max_rejected)


def _rows(folder: Path) -> Iterator[Row]:
    """The captions with the concepts of their images, and the faulty rows of the files of concepts."""
    for name, split in SPLITS.items():
        concepts: dict[str, str] = {}
        captions, stated = folder / f"{name}_captions.csv", folder / f"{name}_concepts.csv"
        for row in read_csv(stated, ("ID", "CUIs"), split) if stated.exists() else ():
            if row.fault:
                yield row
            else:
                concepts[row.values["ID"]] = row.values["CUIs"]
        for row in read_csv(captions, ("ID", "Caption"), split) if captions.exists() else ():
            yield replace(row, values={"CUIs": concepts.get(row.values.get("ID", ""), ""), **row.values})


def _caption(row: Row) -> Caption:
    concepts = (row.text_or_none("CUIs") or "").split(";")
    return Caption(row.text("ID"), row.text("Caption"), row.split, NAME, "en", modality=_modality(concepts))


def _hugging_face_caption(row: Row) -> Caption:
    concepts = row.value("cui")
    return Caption(
        image_id=row.text("image_id"),
        text=row.text("caption"),
        split=row.split,
        dataset=NAME,
        language="en",
        modality=_modality(concepts if isinstance(concepts, list) else []),
    )


def _modality(concepts: list[str]) -> str | None:
    return next((MODALITIES[concept] for concept in concepts if concept in MODALITIES), None)
