"""What the commands share: their settings as options, and how they write to the terminal."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.cli.settings_file import describe
from tasks.settings import Settings, Study

console = Console()
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="YAML file of settings.", show_default=False)]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting, as retrieval.k=5; may be repeated."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show warnings and errors, and no lines of progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as one JSON document, and nothing beside it.")]


def settings_help(*starts: str, model: type[Settings] = Study) -> str:
    """A model's settings whose names start so, all by default, each on a line of its own, for `--help`."""
    lines = [
        f"[cyan]{name}[/cyan] [dim]({escape(default)})[/dim]  {escape(text)}"
        for name, default, text in describe(model)
        if name.startswith(starts or "")
    ]
    return "[bold]Settings[/bold], with their defaults:\n\n" + "\n\n".join(lines)


def log_to_console(quiet: bool = False) -> None:
    """The study's own lines on the terminal, of a quiet one as of Prefect warnings and errors alone."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    logger = logging.getLogger("fed_rag")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.propagate = False
    logger.addHandler(handler)


@contextlib.contextmanager
def flow_running(quiet: bool = False, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """What a flow needs that a command runs: lines on the terminal, a Prefect server, and an end by Ctrl-C.

    `meanwhile` is called while a server starts: let it import the flow, which takes about as long.
    """
    log_to_console(quiet)
    from flows.interrupt import interruptible
    from flows.server import use_prefect_server

    with interruptible():
        use_prefect_server(meanwhile)
        import prefect.main  # noqa: F401  (sets up the handlers)

        for console_handler in logging.getLogger().handlers:
            console_handler.addFilter(_worth_telling)
        yield


def _worth_telling(record: logging.LogRecord) -> bool:
    """False for Prefect's lines on a failed run without a traceback: the command ends with the same sentence."""
    of_a_run = record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
    return not (of_a_run and record.levelno >= logging.ERROR and not record.exc_info)


def print_place(what: str, place: Path, more: str = "") -> None:
    """Where something was written, in one line that can be copied; a path may hold brackets, which are no markup."""
    console.print(f"{what}: [bold]{escape(str(place))}[/bold]{more}", soft_wrap=True, highlight=False)


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Rows as a table, with the first row's names as its headings; nothing where there are no rows."""
    if rows:
        # Folded: a name that is cut off names nothing.
        columns = (Column(escape(heading.replace("_", " ")), overflow="fold") for heading in rows[0])
        table = Table(*columns, title=escape(title))
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        console.print(table)
