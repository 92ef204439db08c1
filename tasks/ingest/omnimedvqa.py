"""OmniMedVQA: multiple-choice questions made from the labels of many image datasets, without a published split."""

from pathlib import Path

from tasks.ingest.choices import choose
from tasks.ingest.files import read_rows
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.modalities import modality_of
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.source import Source, gather
from tasks.records import Case

NAME = "omnimedvqa"
ACCESS = ("Open-access", "Restricted-access")
OPTIONS = ("option_A", "option_B", "option_C", "option_D")


def read(root: Path | None, *, max_rejected: float = 0.0) -> Source:
    """Read OmniMedVQA.

    Args:
        root: the folder that holds `QA_information` and `Images`.
        max_rejected: the largest share of unusable rows.

    The restricted datasets are published without images: their rows are left out where the image is missing.
    """
    found, _ = find_root(root, NAME, tuple(f"QA_information/{access}/*.json" for access in ACCESS))
    folder = found.parents[1]
    paths = [path for access in ACCESS for path in sorted((folder / "QA_information" / access).glob("*.json"))]

    def make(row: Row) -> Case | str:
        image = resolve(folder, row.text("image_path"), where=row.where)
        if row.path.parent.name == "Restricted-access" and not image.exists():
            return "restricted rows left out whose image is not there"
        return _case(row)

    def read_picture(row: Row) -> Picture:
        return read_image(resolve(folder, row.text("image_path"), where=row.where), row.where)

    rows = [row for path in paths for row in read_rows(path)]
    return gather(folder, rows, make, read_picture, max_rejected=max_rejected)


def _case(row: Row) -> Case:
    published = [row.text_or_none(name) if name in row.values else None for name in OPTIONS]
    options, answer = choose(row, published, row.text("gt_answer"))
    modality = "modality_type" if "modality_type" in row.values else "modality"
    return Case(
        id=f"{NAME}:{row.text('question_id')}",
        image_id=row.text("image_path").removeprefix("Images/"),
        question=row.text("question"),
        answer=answer,
        kind="closed",
        split=row.split,
        dataset=NAME,
        language="en",
        modality=modality_of(row.text_or_none(modality)),
        topic=row.text_or_none("question_type"),
        options=options,
    )
