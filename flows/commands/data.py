"""Commands about data: which datasets there are, what their splits share, and a patient's withdrawal."""

import errno
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.commands.terminal import Assignments, SettingsFile, console, log_to_console, print_rows
from flows.files import write_text
from flows.study_file import load_study
from tasks.errors import StudyError


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
    log_to_console()
    from flows.audit import audit as flow
    from tasks.audit.document import score_table, shared_table, table

    _refuse_unwritable(out)
    document = flow(study, against)
    write_text(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print_rows(table(document), f"Of {document['train_test']['test_cases']} test cases, shared with training")
    print_rows(score_table(document), "Right answers without a model (0 to 1)")
    print_rows(shared_table(document["between_datasets"]), "Images of dataset a that b has too, and patients of both")
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
    print_rows([{"folder": path, "removed": what} for path, what in done.removed], f"Forgotten at {hospital}")
    if done.again:
        left = "removed what was left." if done.removed else "nothing was left."
        console.print(f"{hospital} had this patient on its list of withdrawals: {left}")
    print_rows([{"adapter": path} for path in done.adapters], "Trained with the patient, not removed")
    if done.adapters:
        console.print("Weights cannot unlearn: run `fed-rag run` again, which trains without the patient.")
    if done.elsewhere:
        console.print(f"A patient of this name is also held by {', '.join(done.elsewhere)}: forget it there too.")
    console.print("In artifacts/source, a simulation's copies of the published data stay, with the patient in them.")
