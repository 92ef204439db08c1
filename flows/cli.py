"""The `fed-rag` command."""

import errno
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.files import write_text
from flows.study_file import describe, load_comparison, load_recipe, load_study
from tasks.comparison import SWEEPS, Comparison
from tasks.errors import StudyError
from tasks.recipes import Recipe
from tasks.settings import Settings, Study

app = typer.Typer(
    help="Fine-tune one small vision-language model across hospitals, with each hospital's private retrieval.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
console = Console()


def _settings_help(*starts: str, model: type[Settings] = Study) -> str:
    """A model's settings whose names start so, all by default, each on a line of its own, for `--help`."""
    lines = [
        f"[cyan]{name}[/cyan] [dim]({escape(default)})[/dim]  {text}"
        for name, default, text in describe(model)
        if name.startswith(starts or "")
    ]
    return "[bold]Settings[/bold], with their defaults:\n\n" + "\n\n".join(lines)


SettingsFile = Annotated[Path | None, typer.Option("--settings", help="YAML file of settings.", show_default=False)]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting, as retrieval.k=5; may be repeated."),
]


@app.command(epilog=_settings_help())
def run(settings: SettingsFile = None, assignments: Assignments = None) -> None:
    """Run a study: from published data files to a scored federated model with private retrieval.

    What an earlier run has made, and nothing has changed of, is found and not made again.
    """
    study = load_study(settings, tuple(assignments or ()))
    _log_to_console()
    from flows.fed_rag import fed_rag

    folder = Path(fed_rag(study))
    _print_results(folder)
    console.print(f"Results: [bold]{folder}[/bold] (also artifacts/latest): report.html, results.json, results.md")
    if not os.environ.get("PREFECT_API_URL"):
        console.print("Dashboard: run `prefect server start`, open http://127.0.0.1:4200, then Runs and Artifacts.")


@app.command(epilog=_settings_help(model=Comparison))
def compare(
    settings: SettingsFile = None,
    assignments: Assignments = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="NAME=VALUES",
            help=f"A setting and its values, as retrieval.k=0,1,3, or one of {', '.join(SWEEPS)}; may be repeated.",
        ),
    ] = None,
) -> None:
    """Compare configurations on the same cases, seeds and budget: centralised, federated, alone, with and without RAG.

    Each configuration is the base study (settings study.*) with a few settings changed; each is trained once with each
    seed and each split, and stands beside the untrained base and what needs no model. Scores have 95 % intervals
    (bootstrap over images), differences have paired tests. A sweep runs one configuration over a list of values.

    A study that was run before is found and not run again: after an interruption, the same command goes on where it
    stopped. artifacts/comparisons/NAME receives comparison.json, .md, .tex and .html; docs/comparison.md says what is
    in them and how the comparison is kept fair.

    Examples: fed-rag compare --set study.dataset.images=60 --set seeds=[0,1,2]

    fed-rag compare --sweep retrieval.k=0,1,3,5,10 --sweep alpha --set name=sweeps

    fed-rag compare --set 'configurations={fed+rag: {}, all-layers: {lora.targets: [q_proj, k_proj, v_proj, o_proj]}}'
    """
    comparison = load_comparison(settings, tuple(assignments or ()), tuple(sweeps or ()))
    _log_to_console()
    from flows.compare import compare as flow
    from tasks.evaluate.comparison_tables import side_by_side

    folder = Path(flow(comparison))
    document = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    headline = side_by_side(document)
    rows = [dict(zip(headline.headings, row, strict=True)) for row in headline.rows]
    _print_rows(rows, f"{headline.title}: scores with 95 % intervals")
    if headline.note:
        console.print(headline.note)
    console.print(f"Comparison: [bold]{folder}[/bold]: comparison.html, .json, .md, .tex", soft_wrap=True)
    if document["failed"]:
        first = document["failed"][0]
        raise StudyError(f"{len(document['failed'])} points of sweeps failed, first {first['cell']}: {first['reason']}")


@app.command(epilog=_settings_help("dataset.", "synthesis.", "seed"))
def audit(
    settings: SettingsFile = None,
    assignments: Assignments = None,
    against: Annotated[
        Path | None, typer.Option(help="Folder with images of another dataset, to be looked for.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="File that receives the audit.")] = Path("artifacts/audit.json"),
) -> None:
    """Find what a dataset's test cases share with its training cases: images, copies of them, patients, questions.

    Copies are found though resized, recompressed, framed or of another contrast; flipped ones are told apart. Beside
    the counts stand scores that need no model at all: the answer copied from the most similar training case, with and
    without the same image, and the answer that the question alone suggests. The file lists every test case by id.
    docs/audit.md defines each count.

    Example: fed-rag audit --set dataset.name=vqa-rad --set dataset.root=FOLDER --out audit.json
    """
    study = load_study(settings, tuple(assignments or ()))
    _log_to_console()
    from flows.audit import audit as flow
    from tasks.audit.document import score_table, table

    _refuse_unwritable(out)
    document = flow(study, against)
    write_text(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    _print_rows(table(document), f"Of {document['train_test']['test_cases']} test cases, shared with training")
    _print_rows(score_table(document), "Right answers without a model (0 to 1)")
    shared = [
        {heading: row[heading] for heading in row if heading != "examples"} for row in document["between_datasets"]
    ]
    _print_rows(shared, "Images of dataset a that b has too, and patients of both")
    if against:
        console.print(f"Images with a copy in {against}: {document['against']['n']}")
    console.print(f"Audit: [bold]{out}[/bold]")


def _refuse_unwritable(out: Path) -> None:
    """Raise StudyError where a file could not be written, before the work is done that fills it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise StudyError(
            f"Expected --out to be a file that can be written, found {out} ({error.strerror}): name another."
        ) from None


def _print_rows(rows: list[dict[str, Any]], title: str) -> None:
    if rows:
        shown = Table(*(heading.replace("_", " ") for heading in rows[0]), title=title)
        for row in rows:
            shown.add_row(*(escape(str(value)) for value in row.values()))
        console.print(shown)


@app.command()
def datasets() -> None:
    """List the datasets: what each is called, the files it expects, its licence, and what it needs."""
    from tasks.ingest.datasets import DATASETS

    for name, each in DATASETS.items():
        console.print(f"[bold cyan]{name}[/bold cyan]")
        told = {"files": each.layout, "licence": each.licence, "needs": each.needs, "hub": each.hub}
        lines = Table.grid(padding=(0, 0, 0, 2))
        for heading, text in told.items():
            if text:
                lines.add_row(f"[dim]{heading:7}[/dim]", escape(text))
        console.print(lines)


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    hospital: Annotated[str, typer.Option(help="Whose library is searched, as hospital-1.")] = "hospital-1",
    run: Annotated[Path | None, typer.Option(help="Folder of a run; the newest one if not given.")] = None,
) -> None:
    """Ask a trained model about an image, and see the cases that it was shown."""
    from flows.ask import answer

    reply = answer(run or Path("artifacts/latest"), hospital, image, question)
    table = Table(title="Cases shown to the model, nearest first", padding=(0, 0))
    for heading in ("similarity", "case", "image", "question", "answer"):
        table.add_column(heading, no_wrap=heading in ("case", "image"))  # ids are copied from here
    for similarity, case in reply.shown:
        table.add_row(f"{similarity:.3f}", *map(escape, (case.id, case.image_id, case.question, case.answer)))
    if reply.shown:
        console.print(table)
    sure = f"mean probability of the answer's tokens: {reply.confidence:.2f}"
    if reply.confidence < reply.threshold:
        console.print("[bold](answer withheld: the model is not sure enough)[/bold]")
        sure += f", below the {reply.threshold:.2f} from which evaluation.coverage lets answers be given"
    else:
        console.print(f"[bold]{escape(reply.text) or '(no answer)'}[/bold]")
    console.print(f"[dim]{sure}[/dim]")


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="File of predictions.", show_default=False)],
) -> None:
    """Score predictions made elsewhere, in English or Chinese: JSON on standard output, and nothing else there.

    Lines of {"id", "prediction", "answer", "kind": "closed" or "open"}; if known, also "options": {"A": ...},
    "language", "image" (its rows are drawn together for the 95 % intervals) and "confidence" (0 to 1, for calibration).
    docs/scoring.md defines every score, and the compatibility columns.

    Example: fed-rag score predictions.jsonl > scores.json
    """
    from tasks.evaluate.document import score_document
    from tasks.evaluate.lines import read_lines

    typer.echo(json.dumps(score_document(read_lines(predictions)), indent=1))


RunFolder = Annotated[Path, typer.Argument(metavar="[RUN]", help="Folder of a run; the newest one if not given.")]


@app.command()
def report(run: RunFolder = Path("artifacts/latest")) -> None:
    """Write a run's pages: report.html in its folder, and for each hospital's own eyes its answers with images.

    Each page is one file that opens in any browser and asks the network for nothing. The run's page holds counts,
    losses and scores alone; a hospital's page, artifacts/hospitals/HOSPITAL/report.html, stays with that hospital.
    """
    from flows.report import write_pages

    for path in write_pages(run):
        console.print(f"Page: [bold]{path}[/bold]", soft_wrap=True)


@app.command()
def card(run: RunFolder = Path("artifacts/latest")) -> None:
    """Write a run's model card: data, splits, scores, leakage, privacy, limits, intended use."""
    from flows.report import write_card

    console.print(f"Card: [bold]{write_card(run)}[/bold]", soft_wrap=True)


@app.command()
def forget(
    hospital: Annotated[str, typer.Option(help="Whose patient it is, as hospital-1.", show_default=False)],
    patient: Annotated[
        str, typer.Option(help="The patient; an image's id where the dataset states no patient.", show_default=False)
    ],
) -> None:
    """Remove a withdrawn patient from all that a hospital stores, and list the adapters that were trained on them.

    Cases, images, features, library, neighbours and answers are rewritten without the patient, and no later run takes
    the patient back. After an interruption, the same command removes what is left. Adapters cannot unlearn: they are
    listed and stay, until they are removed by hand; `fed-rag run` trains anew without the patient.
    """
    from flows.forget import forget as flow

    done = flow(hospital, patient)
    _print_rows([{"folder": path, "removed": what} for path, what in done.removed], f"Forgotten at {hospital}")
    if done.again:
        left = "removed what was left." if done.removed else "nothing was left."
        console.print(f"{hospital} had this patient on its list of withdrawals: {left}")
    _print_rows([{"adapter": path} for path in done.adapters], "Trained with the patient, not removed")
    if done.adapters:
        console.print("Weights cannot unlearn: run `fed-rag run` again, which trains without the patient.")
    if done.elsewhere:
        console.print(f"A patient of this name is also held by {', '.join(done.elsewhere)}: forget it there too.")
    console.print("In artifacts/source, a simulation's copies of the published data stay, with the patient in them.")


@app.command(epilog=_settings_help(model=Recipe))
def pretrain(
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of a recipe, as data/recipes/llama-clip.yaml.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting of it, as stages.0.epochs=3; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that receives the embedded base. [artifacts/base]")] = None,
    images: Annotated[int | None, typer.Option(min=100, help="Public images to draw for it. [8000]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every random choice of it follows from this. [0]")] = None,
) -> None:
    """Train a base before a federation: by a recipe, or, without one, the embedded base from nothing.

    A recipe's stages follow each other; each is cached, so that after a kill the same command goes on with the stage
    that was not finished. What comes out is artifacts/recipes/NAME, which model.name takes. docs/models.md tells what
    the recipes in data/recipes are.

    Example: fed-rag pretrain --settings data/recipes/radiology-3b.yaml --set stages.0.dataset.root=FOLDER
    """
    given = [name for name, value in {"out": out, "images": images, "seed": seed}.items() if value is not None]
    if settings and given:
        raise StudyError(f"Expected no --{given[0]} beside a recipe, which has settings of its own: leave it out.")
    if assignments and not settings:
        raise StudyError("Expected --settings with a recipe beside --set: name one of the files in data/recipes.")
    recipe = load_recipe(settings, tuple(assignments or ())) if settings else None
    _log_to_console()
    from flows.pretrain import pretrain as flow
    from flows.pretrain import train_recipe

    made = train_recipe(recipe) if recipe else flow(out or Path("artifacts/base"), images or 8000, seed=seed or 0)
    console.print(f"Base: [bold]{made}[/bold]", soft_wrap=True)


def _log_to_console() -> None:
    """The study's own lines on the terminal; of Prefect's, warnings and errors."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    logger = logging.getLogger("fed_rag")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.propagate = False
    logger.addHandler(handler)


def _print_results(folder: Path) -> None:
    from tasks.evaluate.report import SPLITS, score_rows

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    split = f"Split: {SPLITS[results['split']['disjoint']]}"
    table = Table(title="Test cases (scores from 0 to 1)", caption=split, padding=(0, 0))
    headings, *rows = score_rows(results)
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="left" if not heading else "right")
    for place, row in enumerate(rows):
        table.add_row(*row, style="bold" if place < len(results["configurations"]) else None)
    console.print(table)


def main() -> None:
    """Run the command; what a user can mend is told in one sentence."""
    try:
        app()
    except StudyError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
