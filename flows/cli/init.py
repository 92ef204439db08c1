"""The command that writes a settings file to begin with."""

import json
import shlex
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import refuse_absent_data
from flows.cli.settings_file import describe, load_study
from flows.cli.terminal import print_place
from flows.files import write_text
from tasks.errors import StudyError
from tasks.settings import Settings, Study

HEAD = """\
# Settings of a study: fed-rag run --settings {file}
# Lines that begin with "# " and a name are defaults. Take the "# " away to change one.
"""


def init(
    file: Annotated[Path, typer.Argument(help="Settings file to write.")] = Path("study.yaml"),
    dataset: Annotated[str, typer.Option(help="Name of the dataset, as `fed-rag datasets` lists it.")] = "table",
    root: Annotated[Path | None, typer.Option(help="Folder that holds the dataset.", show_default=False)] = None,
) -> None:
    """Write a settings file for a dataset: every setting with its default and what it means.

    Example: fed-rag init study.yaml --dataset table --root /data/export
    """
    if file.exists():
        raise StudyError(f"Expected a new file, found {file} there: name another, or remove it.")
    given = {"dataset.name": dataset} | ({"dataset.root": str(root)} if root else {})
    study = load_study(None, tuple(f"{name}={value}" for name, value in given.items()))
    refuse_absent_data(study.dataset, "--dataset ", "--root")
    write_text(file, commented(HEAD.format(file=shlex.quote(str(file))), given))
    print_place("Settings", file, f": run `fed-rag audit --settings {shlex.quote(str(file))}` next")


def commented(head: str, given: dict[str, str], model: type[Settings] = Study) -> str:
    """All settings of a model as YAML, those that are not `given` as comments, each below what it means."""
    lines = [head]
    for name, default, text in describe(model):
        lines += textwrap.wrap(text, 110, initial_indent="#   ", subsequent_indent="#   ")
        lines.append(
            f"{name}: {json.dumps(given[name], ensure_ascii=False)}" if name in given else f"# {name}: {default}"
        )
        lines.append("")
    return "\n".join(lines)
