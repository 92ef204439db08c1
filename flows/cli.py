"""The `fed-rag` command: what it consists of, in the order of its `--help`."""

import gc
import sys

import typer
from rich.console import Console
from rich.markup import escape

from flows.commands.data import audit, datasets, forget
from flows.commands.explain import explain
from flows.commands.results import ask, card, report, score
from flows.commands.studies import compare, pretrain, run
from flows.commands.terminal import settings_help
from tasks.comparison import Comparison
from tasks.errors import StudyError
from tasks.recipes import Recipe

app = typer.Typer(
    help="Fine-tune one small vision-language model across hospitals, with each hospital's private retrieval.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.command(epilog=settings_help())(run)
app.command(epilog=settings_help(model=Comparison))(compare)
app.command(epilog=settings_help("dataset.", "synthesis.", "seed"))(audit)
app.command()(datasets)
app.command()(ask)
app.command()(explain)
app.command()(score)
app.command()(report)
app.command()(card)
app.command()(forget)
app.command(epilog=settings_help(model=Recipe))(pretrain)


def main() -> None:
    """Run the command; what a user can mend is told in one sentence."""
    try:
        app()
    except StudyError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # what is left goes with the process: to search all libraries for cycles first takes seconds
