"""VQA-RAD: 315 radiology images with questions and answers by clinicians, in its three published layouts."""

from dataclasses import replace
from pathlib import Path

from tasks.cases.groups import image_groups
from tasks.ingest.files import read_rows
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.shards import LAYOUTS, read_shards
from tasks.ingest.source import Source, gather, rows_of
from tasks.records import Case, Kind, Split

NAME = "vqa-rad"
OSF = "VQA_RAD Dataset Public.json"
MEVF = ("trainset.json", "data_RAD/trainset.json")

KINDS: dict[str, Kind] = {"closed": "closed", "open": "open"}
ORGANS = {"abd": "abdomen"}


def read(root: Path | None, *, frames: bool, max_rejected: float = 0.0) -> Source:
    """Read VQA-RAD in the layout found.

    Args:
        root: the folder with the dataset as published on OSF, by MEVF (`data_RAD` or the folder that holds it) or
            on Hugging Face.
        frames: keep MEVF's `frame` rows. They restate questions by template, including those of the official test
            split with their answers, so a model trained on them has seen the test.
        max_rejected: the largest share of unusable rows.

    The OSF layout marks test rows in `phrase_type`; where it has none of them, no case is in the test split.
    """
    folder, layout = find_root(root, NAME, (OSF, *MEVF, *LAYOUTS))
    if layout == OSF:
        return _read_osf(folder, max_rejected)
    if layout in MEVF:
        return _read_mevf(folder, frames, max_rejected)
    return read_shards(folder, NAME, max_rejected)


def _read_osf(folder: Path, max_rejected: float) -> Source:
    def read_picture(row: Row) -> Picture:
        return _read_named(folder, "VQA_RAD Image Folder", row)

    source = gather(folder, read_rows(folder / OSF), _osf_case, read_picture, max_rejected=max_rejected)
    # Four images belong to two MedPix cases each, so these cases must stay together too.
    groups = image_groups(source.cases)
    return replace(source, cases=[replace(case, group=groups[case.image_id]) for case in source.cases])


def _osf_case(row: Row) -> Case:
    split: Split = "test" if row.text("phrase_type").startswith("test_") else "train"
    return replace(_annotated_case(row), split=split, group=row.text_or_none("image_case_url"))


def _read_mevf(folder: Path, frames: bool, max_rejected: float) -> Source:
    def make(row: Row) -> Case | str:
        if row.text("phrase_type") == "frame" and not frames:
            return f"frame rows of the {row.split} set left out"
        return _annotated_case(row)

    def read_picture(row: Row) -> Picture:
        return _read_named(folder, "images", row)

    rows = rows_of(folder, {"trainset.json": "train", "testset.json": "test"}, read_rows)
    return gather(folder, rows, make, read_picture, max_rejected=max_rejected)


def _annotated_case(row: Row) -> Case:
    """The case of a row as OSF and MEVF publish it; its answer is "" where the row has none."""
    organ = row.text_or_none("image_organ")
    return Case(
        id=f"{NAME}:{row.text('qid')}",
        image_id=row.text("image_name").removesuffix(".jpg"),
        question=row.text("question"),
        answer=row.text_or_none("answer") or "",
        kind=row.choice("answer_type", KINDS),
        split=row.split,
        dataset=NAME,
        language="en",
        organ=ORGANS.get(organ.lower(), organ.lower()) if organ else None,
        topic=row.text_or_none("question_type"),
    )


def _read_named(root: Path, folder: str, row: Row) -> Picture:
    return read_image(resolve(root, folder, row.text("image_name"), where=row.where), row.where)
