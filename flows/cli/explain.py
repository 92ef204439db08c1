"""The command that shows where an answer comes from."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.checks import refuse_no_run, refuse_unwritable_folder
from flows.cli.results import Personal, RunFolder
from flows.cli.terminal import console, log_to_console, print_place
from tasks.errors import StudyError

if TYPE_CHECKING:
    from flows.serve.explainer import Explained


def explain(
    run: RunFolder = Path("artifacts/latest"),
    hospital: Annotated[str, typer.Option(help="Whose case, library and adapter, as hospital-1.")] = "hospital-1",
    case: Annotated[
        str | None,
        typer.Option(help="Id of one of its cases.", show_default=False),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Or an image file of your own.", show_default=False)] = None,
    question: Annotated[str | None, typer.Option(help="What is asked about that file.", show_default=False)] = None,
    method: Annotated[str, typer.Option(help="attention, rollout, relevance, occlusion, or all.")] = "all",
    token: Annotated[
        int | None,
        typer.Option(help="Token of the answer, 0 the first; all if not given.", show_default=False),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Draw attention of this layer alone, 0 the first.", show_default=False)
    ] = None,
    head: Annotated[int | None, typer.Option(help="And of this head of it.", show_default=False)] = None,
    personal: Personal = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files; one in the hospital's own folder if not given.", show_default=False),
    ] = None,
) -> None:
    """Show where one answer comes from: which regions of which image, and which part of the prompt.

    The model answers the question anew, as in the run, and its answer is explained: attention to each image by layer
    and head, attention rollout, gradient-weighted relevance, and what the answer loses as regions are covered. The
    folder receives a picture of each method (ATTENTION.png and so on: every image of the prompt under its map, and a
    bar of shares), saliency.parquet and shares.parquet with all numbers, of attention each layer's and head's too, and
    answer.json. They show patients: keep them with the hospital. docs/saliency.md says what each method can tell.
    RUN is the folder of a run, the newest one if not given.

    Examples: fed-rag explain --hospital hospital-2 --case phantom:site-2-00039:5

    fed-rag explain --image chest.png --question "Is there a nodule?" --method relevance --token 0
    """
    if (case is None) == (image is None) or (image is None) != (question is None):
        raise StudyError("Expected either --case, or --image with --question.")
    refuse_no_run(run)
    if image is not None and question is not None:
        from flows.serve.user_question import read_question

        read_question(image, question)
    if out is not None:
        refuse_unwritable_folder(out)
    log_to_console()
    from flows.serve.explainer import Wanted, explain_case, explain_image, methods_of, write_explained
    from tasks.store import ROOT

    wanted = Wanted(methods_of(method), token, layer, head)
    if image is not None and question is not None:
        explained, name = explain_image(run, hospital, image, question, wanted, personal), image.stem
    else:
        explained, name = explain_case(run, hospital, str(case), wanted, personal), str(case)
    folder = out or ROOT / "hospitals" / hospital / "explained" / re.sub(r"[^\w.-]+", "-", name)
    write_explained(explained, folder)
    _print_shares(explained)
    print_place("Maps and numbers", folder)


def _print_shares(explained: "Explained") -> None:
    from tasks.report.page.share_plots import PARTS

    made = explained.explanation
    console.print(f"[bold]{escape(explained.answer) or '(no answer)'}[/bold]")
    likely = zip(made.tokens, made.probabilities, strict=True)
    words = "  ".join(f"{number} {word.strip()!r} {sure:.2f}" for number, (word, sure) in enumerate(likely))
    console.print(f"[dim]its tokens and their probabilities: {escape(words)}[/dim]")
    if explained.confidence < explained.threshold:
        console.print(
            f"[dim]evaluation.coverage withholds answers below a confidence of {explained.threshold:.2f}[/dim]"
        )
    table = Table("", *(name for name, _ in PARTS.values()), title="Share of what the answer comes from")
    for method in explained.wanted.methods:
        table.add_row(method, *(f"{made.share(method)[part]:.3f}" for part in PARTS))
    console.print(table)
