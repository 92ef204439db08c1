"""Commands about what came out: questions to a trained model, its export, scores, a run's pages and card."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.checks import refuse_no_run
from flows.cli.terminal import AsJson, Quiet, console, flow_running, print_place, print_rows
from flows.files import refuse_filled

Personal = Annotated[
    bool, typer.Option("--personal", help="With the hospital's personal adapter, not the one for all.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="[RUN]", help="Folder of a run; the newest one if not given.")]


def ask(
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    hospital: Annotated[str, typer.Option(help="Whose library is searched, as hospital-1.")] = "hospital-1",
    run: Annotated[Path | None, typer.Option(help="Folder of a run; the newest one if not given.")] = None,
    personal: Personal = False,
) -> None:
    """Ask a trained model about an image, and see the cases that it was shown.

    IMAGE is an image file, also DICOM; QUESTION is what is asked about it.
    """
    folder = run or Path("artifacts/latest")
    refuse_no_run(folder)
    from flows.serve.user_question import read_question

    read_question(image, question)  # before what takes seconds to load
    from flows.serve.answerer import answer

    reply = answer(folder, hospital, image, question, personal)
    table = Table(title="Cases shown to the model, nearest first", padding=(0, 0))
    for heading in ("similarity", "case", "image", "question", "answer"):
        table.add_column(heading, no_wrap=heading in ("case", "image"))  # ids are copied from here
    for similarity, case in reply.retrieved:
        table.add_row(f"{similarity:.3f}", *map(escape, (case.id, case.image_id, case.question, case.answer)))
    if reply.retrieved:
        console.print(table)
    sure = f"mean probability of the answer's tokens: {reply.confidence:.2f}"
    if reply.confidence < reply.threshold:
        console.print("[bold](answer withheld: the model is not sure enough)[/bold]")
        sure += f", below the {reply.threshold:.2f} from which evaluation.coverage lets answers be given"
    else:
        console.print(f"[bold]{escape(reply.text) or '(no answer)'}[/bold]")
    console.print(f"[dim]{sure}[/dim]")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="New or empty folder that receives it.", show_default=False)
    ],
    hospital: Annotated[str, typer.Option(help="Whose adapter and library, as hospital-1.", show_default=False)],
    merge: Annotated[bool, typer.Option("--merge", help="Write the adapter merged into the base.")] = False,
    personal: Personal = False,
) -> None:
    """Write what a hospital answers with as a folder that works without this project.

    It holds the base, the trained adapter, the hospital's library with its cases, and ask.py, a script that answers a
    question about an image with transformers, PEFT and FAISS alone, retrieved cases included. Its README says what is
    in it and what differs from the run. It holds patients' images: keep it at the hospital.

    Example: fed-rag export artifacts/latest --hospital hospital-1 taken && python taken/ask.py IMAGE "Is it normal?"
    """
    refuse_no_run(run)
    refuse_filled(folder)
    from flows.export import export as write

    print_place(
        "Exported", write(run, hospital, folder, merge, personal), ": README.md, ask.py; it must stay at the hospital"
    )


def score(
    predictions: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="File of predictions.", show_default=False)],
) -> None:
    """Score predictions made elsewhere, in English or Chinese: JSON on standard output, and nothing else there.

    Lines of {"id", "prediction", "answer", "kind": "closed" or "open"}; if known, also "options": {"A": ...},
    "language", "image" (its rows are drawn together for the 95 % intervals) and "confidence" (0 to 1, for calibration).
    docs/scoring.md defines every score, and the compatibility columns.

    Example: fed-rag score predictions.jsonl > scores.json
    """
    from tasks.score.file import score_document
    from tasks.score.lines import read_lines

    typer.echo(json.dumps(score_document(read_lines(predictions)), indent=1))


def report(run: RunFolder = Path("artifacts/latest")) -> None:
    """Write a run's pages: report.html in its folder, and for each hospital's own eyes its answers with images.

    Each page is one file that opens in any browser and asks the network for nothing. The run's page holds counts,
    losses and scores alone; a hospital's page, artifacts/hospitals/HOSPITAL/report.html, stays with that hospital.
    RUN is the folder of a run, the newest one if not given.
    """
    refuse_no_run(run)
    from flows.report import write_pages

    for path in write_pages(run):
        print_place("Page", path)


def contributions(
    run: RunFolder = Path("artifacts/latest"),
    orders: Annotated[
        int, typer.Option(min=2, help="Orders of hospitals that are drawn where there are more than 8.")
    ] = 64,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Tell what each hospital brought to the last round: Shapley values, and what is missed without it.

    The round's updates are aggregated again without some of them, and each hospital measures the result on its held-out
    training cases, never on test cases. Nothing is trained. Up to 8 hospitals, all coalitions are measured. The figures
    go to contributions.json in the run's folder, to its page and to the dashboard.
    RUN is the folder of a run, the newest one if not given.
    """
    refuse_no_run(run)
    with flow_running(quiet):
        from flows.contributions import contributions as flow

        found = flow(run.resolve(), orders)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from tasks.report.contributions import contribution_rows, contribution_sentence

    head, *rows = contribution_rows(found)
    print_rows([dict(zip(head, row, strict=True)) for row in rows], "What each hospital brought")
    console.print(contribution_sentence(found), highlight=False)


def card(run: RunFolder = Path("artifacts/latest")) -> None:
    """Write a run's model card: data, splits, scores, leakage, privacy, limits, intended use.

    RUN is the folder of a run, the newest one if not given.
    """
    refuse_no_run(run)
    from flows.report import write_card

    print_place("Card", write_card(run))
