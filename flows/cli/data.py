"""Commands about data: which datasets there are, what their splits share, and a patient's withdrawal."""

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.checks import refuse_absent_control, refuse_absent_data, refuse_no_folder, refuse_unwritable
from flows.cli.settings_file import load_study
from flows.cli.terminal import Assignments, SettingsFile, console, flow_running, print_place, print_rows
from flows.files import write_text
from tasks.errors import StudyError
from tasks.text.wording import counted

if TYPE_CHECKING:
    from tasks.records.shared_documents import SeenOfDataset


def datasets() -> None:
    """List the datasets: what each is called, the files it expects, its licence, and what it needs."""
    from tasks.ingest.datasets import DATASETS

    for name, each in DATASETS.items():
        console.print(f"[bold cyan]{name}[/bold cyan]")
        facts = {"files": each.layout, "licence": each.licence, "needs": each.needs, "hub": each.hub}
        lines = Table.grid(padding=(0, 0, 0, 2))
        for heading, text in facts.items():
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
    If model.name is a base with a record of its training images, the test images among these are counted as well.
    docs/audit.md defines each count.

    Example: fed-rag audit --set dataset.name=vqa-rad --set dataset.root=FOLDER --out audit.json
    """
    study = load_study(settings, tuple(assignments or ()))
    refuse_absent_data(study.dataset)
    refuse_no_folder("model.name", study.model.name)
    refuse_absent_control(study)
    if against and not against.is_dir():
        raise StudyError(f"Expected --against to be a folder with images, found no folder {against}: name another.")
    refuse_unwritable(out)
    with flow_running(meanwhile=lambda: importlib.import_module("flows.audit")):
        from flows.audit import audit as flow

        document = flow(study, against)
    from tasks.audit.control import control_sentence, control_table
    from tasks.audit.document import score_table, shared_table, table

    write_text(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    print_rows(
        table(document), f"Of {counted(document['train_test']['test_cases'], 'test cases')}, shared with training"
    )
    print_rows(control_table(document["control"]), "Images near a training image (share, 95 % interval)")
    console.print(escape(control_sentence(document["control"])), highlight=False)
    print_rows(score_table(document), "Right answers without a model (0 to 1)")
    print_rows(shared_table(document["between_datasets"]), "Images of dataset a that b has too, and patients of both")
    if study.model.name != "embedded":
        console.print(escape(_told_of_base(document["seen"])), highlight=False)
    if against:
        console.print(f"Images with a copy in {escape(str(against))}: {document['against']['n']}")
    print_place("Audit", out)


def _told_of_base(seen: "SeenOfDataset | None") -> str:
    """What the audit tells of a base that its settings name."""
    from tasks.report.seen import seen_sentence

    if seen is None:
        return "The base has no record of its training images: whether it has seen test images is unknown."
    none = f"The base was trained on none of the {counted(seen['images']['n'] or 0, 'test images')}."
    return seen_sentence([seen["images"]]) or none


def forget(
    hospital: Annotated[str, typer.Option(help="Whose patient it is, as hospital-1.", show_default=False)],
    patient: Annotated[
        str,
        typer.Option(
            help="The patient's id as the table or the DICOM file writes it; an image's id where none is stated.",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking, for scripts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and change nothing.")] = False,
) -> None:
    """Remove a withdrawn patient from all that a hospital stores, and list the adapters that were trained on them.

    First the command shows what it will remove, and asks. Cases, images, features, library, neighbours and answers are
    rewritten without the patient, and no later run takes the patient back. After an interruption, the same command
    removes what is left. Adapters cannot unlearn: they are listed and stay, until they are removed by hand; `fed-rag
    run` trains anew without the patient.
    """
    from flows.forget import forget as flow

    if not (yes or dry_run or _somebody_is_there()):
        raise StudyError("Expected --yes or --dry-run where nobody can be asked, found neither: add one of them.")
    if dry_run or not yes:
        planned = flow(hospital, patient, dry=True)
        _print_removed(planned.removed, f"To be removed at {hospital}")
        print_rows([{"adapter": path} for path in planned.adapters], "Trained with the patient, stays")
        if dry_run:
            console.print("Nothing was changed: this was a dry run.")
            return
        if planned.removed and not typer.confirm("Remove all of this? It cannot be undone."):
            console.print("Nothing was changed.")
            return
    done = flow(hospital, patient)
    _print_removed(done.removed, f"Forgotten at {hospital}")
    if done.again:
        left = "removed what was left." if done.removed else "nothing was left."
        console.print(f"{escape(hospital)} had this patient on its list of withdrawals: {left}")
    print_rows([{"adapter": path} for path in done.adapters], "Trained with the patient, not removed")
    if done.adapters:
        console.print("Weights cannot unlearn: run `fed-rag run` again, which trains without the patient.")
    if done.elsewhere:
        others = escape(", ".join(done.elsewhere))
        console.print(f"A patient of this name is also held by {others}: forget it there too.")
    console.print("In artifacts/source, a simulation's copies of the published data stay, with the patient in them.")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _print_removed(removed: Iterable[tuple[str, str]], title: str) -> None:
    print_rows([{"folder": path, "removed": what} for path, what in removed], title)
