"""What the commands share: their settings as options, and how they write to the terminal."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.study_file import describe
from tasks.settings import Settings, Study

console = Console()
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="YAML file of settings.", show_default=False)]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting, as retrieval.k=5; may be repeated."),
]


def settings_help(*starts: str, model: type[Settings] = Study) -> str:
    """A model's settings whose names start so, all by default, each on a line of its own, for `--help`."""
    lines = [
        f"[cyan]{name}[/cyan] [dim]({escape(default)})[/dim]  {escape(text)}"
        for name, default, text in describe(model)
        if name.startswith(starts or "")
    ]
    return "[bold]Settings[/bold], with their defaults:\n\n" + "\n\n".join(lines)


def log_to_console() -> None:
    """The study's own lines on the terminal; of Prefect's, warnings and errors."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    logger = logging.getLogger("fed_rag")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.propagate = False
    logger.addHandler(handler)


def print_place(what: str, place: Path, more: str = "") -> None:
    """Where something was written, in one line that can be copied; a path may hold brackets, which are no markup."""
    console.print(f"{what}: [bold]{escape(str(place))}[/bold]{more}", soft_wrap=True, highlight=False)


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Rows as a table, with the first row's names as its headings; nothing where there are no rows."""
    if rows:
        shown = Table(*(escape(heading.replace("_", " ")) for heading in rows[0]), title=escape(title))
        for row in rows:
            shown.add_row(*(escape(str(value)) for value in row.values()))
        console.print(shown)
