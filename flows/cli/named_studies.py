"""Studies that have a name: a settings file each in `data/studies`, whose first comment says what it does."""

from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from tasks.errors import StudyError
from tasks.settings import DatasetSettings
from tasks.store.shipped import DATA

FOLDER = DATA / "studies"


def names() -> list[str]:
    """All of them, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


NamedStudy = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME",
        help=f"A study by its name, in place of a settings file: {', '.join(names())}.",
        show_default=False,
        autocompletion=names,
    ),
]


def file_of(name: str | None, settings: Path | None) -> Path | None:
    """The settings file of a named study; None without a name.

    Raises StudyError for an unknown name, and for a settings file beside it.
    """
    if name is None:
        return None
    if settings:
        raise StudyError("Expected --study or --settings, found both: leave one out, and change settings with --set.")
    if name not in names():
        raise StudyError(f"Expected --study to be one of {', '.join(names())}, found {name!r}: choose one.")
    return FOLDER / f"{name}.yaml"


def introduction(file: Path) -> str:
    """The comment that a settings file begins with: what the study does, and what it takes."""
    comment = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in comment)


def refuse_no_root(name: str | None, dataset: DatasetSettings, setting: str = "dataset.root") -> None:
    """Raise StudyError where a named study lacks the folder of a dataset, also of one that the hub has."""
    from tasks.ingest.datasets import DATASETS

    absent = [each for each, root in dataset.sources if root is None and not DATASETS[each].drawn]
    if name is None or not absent:
        return
    option, folders = f"{setting}=DIR", f"folder of {absent[0]}"
    if isinstance(dataset.name, tuple):
        option = f"'{setting}=[{', '.join('DIR' for _ in dataset.name)}]'"
        folders = f"folders of {' and '.join(dataset.name)}, in this order"
    raise StudyError(
        f"Expected --set {option} beside --study {name}, found none for {' and '.join(absent)}: name the {folders}."
    )
