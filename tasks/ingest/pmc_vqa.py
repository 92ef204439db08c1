"""PMC-VQA: multiple-choice questions about figures of open-access articles, in both of its versions."""

from pathlib import Path

from tasks.ingest.choices import choose
from tasks.ingest.files import read_csv
from tasks.ingest.finding import problem
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.source import Source, gather, rows_of
from tasks.records import Case, Split

LETTERS = ("A", "B", "C", "D")
FIELDS = ("Figure_path", "Question", "Answer", *(f"Choice {letter}" for letter in LETTERS))
FILES: dict[str, dict[str, Split]] = {
    "pmc-vqa": {"train.csv": "train", "test.csv": "test"},
    "pmc-vqa-v2": {"train_2.csv": "train", "test_2.csv": "test"},
}
IMAGES = {"pmc-vqa": ("images",), "pmc-vqa-v2": ("images_2", "figures", "images")}
"""Possible folders of the unpacked images: the first that exists is used."""


def read(root: Path | None, *, name: str, max_rejected: float = 0.0) -> Source:
    """Read PMC-VQA.

    Args:
        root: the folder that holds the CSV files and the unpacked images.
        name: `pmc-vqa` for version 1, which has compound figures, or `pmc-vqa-v2` for version 2, which has none.
        max_rejected: the largest share of unusable rows.
    """
    files = FILES[name]
    folder, _ = find_root(root, name, tuple(files)[:1])
    images = next((each for each in IMAGES[name] if (folder / each).is_dir()), IMAGES[name][0])

    def make(row: Row) -> Case:
        return _case(row, name)

    def read_picture(row: Row) -> Picture:
        return read_image(resolve(folder, images, row.text("Figure_path"), where=row.where), row.where)

    rows = rows_of(folder, files, lambda path, split: read_csv(path, FIELDS, split))
    return gather(folder, rows, make, read_picture, max_rejected=max_rejected)


def _case(row: Row, name: str) -> Case:
    choices = {letter: row.text_or_none(f"Choice {letter}") for letter in LETTERS}
    options, answer = choose(row, choices.values(), _gold(row, choices))
    figure = row.text("Figure_path")
    return Case(
        id=f"{name}:{row.split}:{row.index}",
        image_id=figure.removesuffix(".jpg"),
        question=row.text("Question"),
        answer=answer,
        kind="closed",
        split=row.split,
        dataset=name,
        language="en",
        group=figure.split("_")[0],  # the article: its figures often show one patient
        options=options,
    )


def _gold(row: Row, choices: dict[str, str | None]) -> str:
    """The right choice: its published text if a label names its letter, else the answer as written."""
    answer = row.text("Answer")
    label = row.text_or_none("Answer_label") if "Answer_label" in row.values else None
    if label is None:
        return answer
    gold = choices.get(label.upper())
    if gold is None:
        raise problem(row.where, "a label that names a choice", row.quoted(label), "correct the row")
    return gold
