"""The `fed-rag` command: what it consists of, in the order of its `--help`."""

import gc
import inspect
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from flows.cli.attack import attack
from flows.cli.checks import refuse_other_encodings
from flows.cli.compose import compose
from flows.cli.coordinator import coordinator_commands
from flows.cli.data import audit, datasets, forget
from flows.cli.explain import explain
from flows.cli.hospital import hospital_commands
from flows.cli.init import init
from flows.cli.privacy import privacy_commands
from flows.cli.promotion import promote, promotions, rollback
from flows.cli.results import ask, card, contributions, export, report, score
from flows.cli.runs import diff, prune, runs
from flows.cli.serve import serve
from flows.cli.studies import compare, pretrain, run
from flows.cli.terminal import settings_help
from tasks.errors import StudyError
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import Comparison
from tasks.settings.recipe import Recipe
from tasks.store.collector import search_seldom


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version as version_of

        print(f"fed-rag {version_of('fed-rag')}")
        raise typer.Exit


def begin(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What comes before each command."""
    refuse_other_encodings()


app = typer.Typer(
    help="Fine-tune one small vision-language model across hospitals, with each hospital's private retrieval.",
    no_args_is_help=True,
    callback=begin,
    suggest_commands=False,  # Click does
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)


def _add(command: Callable[..., None], epilog: str | None = None) -> None:
    """Help shows a command's docstring as it is written: what stands in brackets there is no markup."""
    app.command(help=escape(inspect.cleandoc(command.__doc__ or "")), epilog=epilog)(command)


_add(run, settings_help())
_add(compare, settings_help(model=Comparison))
_add(attack, settings_help("name", "strategies", "attacks", "byzantine", "seeds", "tune", model=AttackTable))
_add(audit, settings_help("dataset.", "synthesis.", "audit.", "model.name", "seed"))
for each in (
    init,
    datasets,
    compose,
    ask,
    explain,
    serve,
    export,
    score,
    report,
    card,
    contributions,
    runs,
    diff,
    prune,
    promote,
    rollback,
    promotions,
    forget,
):
    _add(each)
_add(pretrain, settings_help(model=Recipe))
app.add_typer(privacy_commands, name="privacy")
app.add_typer(coordinator_commands, name="coordinator")
app.add_typer(hospital_commands, name="hospital")


def main() -> None:
    """Run the command; an error that the user can mend is printed as one sentence."""
    search_seldom()
    try:
        app()
    except StudyError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # what is left goes with the process: to search all libraries for cycles first takes seconds
