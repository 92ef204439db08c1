"""VQA-RAD: 315 radiographs with questions that clinicians asked and answered, in its three published layouts."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tasks.groups import image_groups
from tasks.ingest.files import Row, find_root, read_rows, resolve
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.shards import image_bytes, read_row_image, read_split
from tasks.ingest.source import Source, gather
from tasks.records import Case, Kind, Split

NAME = "vqa-rad"
OSF = "VQA_RAD Dataset Public.json"
MEVF = ("trainset.json", "data_RAD/trainset.json")
HUGGING_FACE = ("data/train-*.parquet", "train-*.parquet")

KINDS: dict[str, Kind] = {"closed": "closed", "open": "open"}
ORGANS = {"abd": "abdomen"}


def read(root: Path | None, *, frames: bool) -> Source:
    """Read VQA-RAD in the layout found.

    Args:
        root: the folder with the dataset as published on OSF, by MEVF (`data_RAD` or the folder that holds it) or
            on Hugging Face.
        frames: keep MEVF's `frame` rows. They restate questions by template, those of the official test split with
            their answers too, so that a model trained on them has seen the test.

    The OSF layout names a test split in `phrase_type`; the cases hold none where its rows are absent.
    """
    folder, layout = find_root(root, NAME, (OSF, *MEVF, *HUGGING_FACE))
    if layout == OSF:
        return _read_osf(folder)
    if layout in MEVF:
        return _read_mevf(folder, frames)
    return gather(_hugging_face_cases(folder), read_row_image)


def _read_osf(folder: Path) -> Source:
    rows = read_rows(folder / OSF)
    cases = [_osf_case(row) for row in rows]
    # Four images appear under two MedPix cases, so that these cases must not be parted either.
    groups = image_groups(cases)
    cases = [replace(case, group=groups[case.image_id]) for case in cases]

    def read_picture(row: Row) -> Picture:
        return _read_named(folder, "VQA_RAD Image Folder", row)

    return gather(zip(rows, cases, strict=True), read_picture)


def _osf_case(row: Row) -> Case:
    split: Split = "test" if row.text("phrase_type").startswith("test_") else "train"
    return replace(_annotated_case(row, split), group=row.text_or_none("image_case_url"))


def _read_mevf(folder: Path, frames: bool) -> Source:
    found: list[tuple[Row, Case]] = []
    notes = {}
    splits: dict[str, Split] = {"trainset.json": "train", "testset.json": "test"}
    for name, split in splits.items():
        # Only the train set marks the layout: a test split is made where the published one is absent.
        rows = read_rows(folder / name) if (folder / name).exists() else []
        kept = [row for row in rows if frames or row.text("phrase_type") != "frame"]
        notes[f"frame rows of the {split} set left out"] = len(rows) - len(kept)
        found += [(row, _annotated_case(row, split)) for row in kept]

    def read_picture(row: Row) -> Picture:
        return _read_named(folder, "images", row)

    return gather(found, read_picture, notes)


def _annotated_case(row: Row, split: Split) -> Case:
    """The case of a row as OSF and MEVF publish it; its answer is "" where the row has none."""
    organ = row.text_or_none("image_organ")
    return Case(
        id=f"{NAME}:{row.text('qid')}",
        image_id=row.text("image_name").removesuffix(".jpg"),
        question=row.text("question"),
        answer=row.text_or_none("answer") or "",
        kind=row.choice("answer_type", KINDS),
        split=split,
        dataset=NAME,
        language="en",
        organ=ORGANS.get(organ.lower(), organ.lower()) if organ else None,
        topic=row.text_or_none("question_type"),
    )


def _read_named(root: Path, folder: str, row: Row) -> Picture:
    return read_image(resolve(root, folder, row.text("image_name"), where=row.where), row.where)


def _hugging_face_cases(folder: Path) -> Iterator[tuple[Row, Case]]:
    """The cases of the Parquet layout, which has neither row ids nor image names nor answer types."""
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for split in splits:
        for index, row in read_split(folder, split):
            answer = row.text_or_none("answer") or ""
            yield (
                row,
                Case(
                    id=f"{NAME}:{split}:{index}",
                    image_id=hashlib.sha256(image_bytes(row)).hexdigest()[:16],
                    question=row.text("question"),
                    answer=answer,
                    kind="closed" if answer.lower() in ("yes", "no") else "open",
                    split=split,
                    dataset=NAME,
                    language="en",
                ),
            )
