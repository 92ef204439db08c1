"""SLAKE: 642 CT, MRI and X-ray images with questions in English and Chinese."""

from dataclasses import replace
from pathlib import Path

from tasks.ingest.files import read_rows
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.modalities import modality_of
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.slake_boxes import read_boxes
from tasks.ingest.source import Source, gather
from tasks.records import Case, Kind, Split

NAME = "slake"
SPLITS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train.json",)),
    ("validation", ("validate.json", "validation.json")),
    ("test", ("test.json",)),
)
"""File names of each split: the first that exists is read (Hugging Face renamed one). Only train is required."""

LANGUAGES = {"en": "en", "zh": "zh"}
KINDS: dict[str, Kind] = {"closed": "closed", "open": "open"}


def read(root: Path | None, *, language: str, max_rejected: float = 0.0) -> Source:
    """Read SLAKE.

    Args:
        root: the folder that holds `train.json` and `imgs`.
        language: of the questions, `en`, `zh` or `all`.
        max_rejected: the largest share of unusable rows.

    The two languages were split independently: most images of the English test split are in the Chinese train split.
    With `all`, no image of a test case stays in training or validation.
    """
    folder, _ = find_root(root, NAME, ("train.json",))
    paths = [
        (split, next((folder / name for name in names if (folder / name).exists()), None)) for split, names in SPLITS
    ]

    def make(row: Row) -> Case | str:
        written_in = row.choice("q_lang", LANGUAGES)
        return _case(row, written_in) if language in (written_in, "all") else "rows in another language left out"

    def read_picture(row: Row) -> Picture:
        return read_image(resolve(folder, "imgs", row.text("img_name"), where=row.where), row.where)

    rows = [row for split, path in paths if path for row in read_rows(path, split)]
    source = gather(folder, rows, make, read_picture, max_rejected=max_rejected)
    findings, unreadable = read_boxes(folder / "imgs", source.images)
    notes = {"files of boxes that could not be read": unreadable} if unreadable else {}
    source = replace(source, findings=findings, notes=source.notes | notes)
    return _without_test_images(source) if language == "all" else source


def _case(row: Row, language: str) -> Case:
    """The case of a row; its answer is "" where the row has none."""
    modality, organ = row.text_or_none("modality"), row.text_or_none("location")
    return Case(
        id=f"{NAME}:{row.text('qid')}",
        image_id=row.text("img_name").removesuffix("/source.jpg"),
        question=row.text("question"),
        answer=row.text_or_none("answer") or "",
        kind=row.choice("answer_type", KINDS),
        split=row.split,
        dataset=NAME,
        language=language,
        modality=modality_of(modality),
        organ=organ.lower().replace("_", " ") if organ else None,
        topic=row.text_or_none("content_type"),
    )


def _without_test_images(source: Source) -> Source:
    """Remove the cases of train and validation whose image also has a test case."""
    tested = {case.image_id for case in source.cases if case.split == "test"}
    kept = [case for case in source.cases if case.split == "test" or case.image_id not in tested]
    if len(kept) == len(source.cases):
        return source
    notes = source.notes | {"rows left out whose image has a test case": len(source.cases) - len(kept)}
    return replace(source, cases=kept, notes=notes)
