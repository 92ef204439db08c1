"""Commands that train: a study, a comparison of several, a base before them."""

import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.checks import (
    refuse_absent,
    refuse_absent_all,
    refuse_absent_data,
    refuse_absent_model,
    refuse_unwritable_folder,
)
from flows.cli.named_studies import NamedStudy, file_of, introduction, refuse_no_root
from flows.cli.settings_file import load_comparison, load_recipe, load_study
from flows.cli.terminal import AsJson, Assignments, Quiet, SettingsFile, console, flow_running, print_place, print_rows
from tasks.errors import StudyError
from tasks.settings import DatasetSettings
from tasks.settings.comparison import SWEEPS, cells
from tasks.settings.recipe import Recipe
from tasks.text.wording import counted

if TYPE_CHECKING:
    from tasks.records.comparison import ComparisonDocument


def run(
    named: NamedStudy = None,
    settings: SettingsFile = None,
    assignments: Assignments = None,
    again_from: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Do this again, and all that follows, though it is finished."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a study: from published data files to a scored federated model with private retrieval.

    Stages that an earlier run has finished, and that nothing has changed of, are reused. With --from STAGE that stage
    runs again, and so does each one that takes something of what ran again, even if it comes out the same. STAGE is a
    part as the dashboard shows it (prepare, round 2, personalise, evaluate) or a stage by the name of its folder
    (library, update, predictions). A finished folder stays until its new one is whole.

    Example: fed-rag run --study slake --set dataset.root=FOLDER
    """
    file = file_of(named, settings)
    study = load_study(file or settings, tuple(assignments or ()))
    refuse_no_root(named, study.dataset)
    refuse_absent(study)
    if again_from:
        from flows.again import refuse_unknown

        refuse_unknown(again_from, study)
    if file and not quiet:
        typer.echo(introduction(file), err=True)
    has_server = "PREFECT_API_URL" in os.environ
    with flow_running(quiet, lambda: importlib.import_module("flows.fed_rag")):
        from flows.fed_rag import fed_rag

        folder = Path(fed_rag(study, again_from))
    if as_json:
        print((folder / "results.json").read_text(encoding="utf-8"), end="")
        return
    _print_results(folder)
    print_place("Results", folder, " (also artifacts/latest): report.html, card.md, results.json, results.md")
    if not has_server:
        console.print("Dashboard: run `prefect server start`, open http://127.0.0.1:4200, then Runs and Artifacts.")


def _print_results(folder: Path) -> None:
    from tasks.report.data import split_sentence
    from tasks.report.results import score_rows
    from tasks.report.seen import run_sentence

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    table = Table(title="Test cases (scores from 0 to 1)", padding=(0, 0))
    headings, *rows = score_rows(results)
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="left" if not heading else "right")
    for place, row in enumerate(rows):
        table.add_row(*map(escape, row), style="bold" if place < len(results["configurations"]) else None)
    console.print(table)
    console.print(f"Split: {escape(split_sentence([results['split']]))}.", highlight=False)
    if seen := run_sentence(results):
        console.print(f"[bold]{escape(seen)}[/bold]", highlight=False)


def compare(
    named: NamedStudy = None,
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
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare configurations on the same cases, seeds and budget: centralised, federated, alone, with and without RAG.

    Each configuration is the base study (settings study.*) with a few settings changed; each is trained once with each
    seed and each split, and stands beside the untrained base and what needs no model. Scores have 95 % intervals
    over trainings and test images, differences have paired tests. A sweep runs one configuration over a list of values.

    A study that was run before is found and not run again: after an interruption, the same command goes on where it
    stopped. artifacts/comparisons/NAME receives comparison.json, .md, .tex and .html; docs/comparison.md says what is
    in them and how the comparison is kept fair.

    Examples: fed-rag compare --set study.dataset.images=60 --set seeds=[0,1,2]

    fed-rag compare --study slake --set study.dataset.root=FOLDER --set name=slake

    fed-rag compare --sweep retrieval.k=0,1,3,5,10 --sweep alpha --set name=sweeps

    fed-rag compare --set 'configurations={fed+rag: {}, all-layers: {lora.targets: [q_proj, k_proj, v_proj, o_proj]}}'
    """
    file = file_of(named, settings)
    comparison = load_comparison(settings, tuple(assignments or ()), tuple(sweeps or ()), file)
    studies = [cell.study for cell in cells(comparison)]
    for study in studies:
        refuse_no_root(named, study.dataset, "study.dataset.root")
    refuse_absent_all(studies)
    if file and not quiet:
        typer.echo(
            f"{introduction(file)}\nThe comparison consists of {counted(len(studies), 'such studies')}.", err=True
        )
    with flow_running(quiet, lambda: importlib.import_module("flows.compare")):
        from flows.compare import compare as flow

        folder = Path(flow(comparison))
    document = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    if as_json:
        print((folder / "comparison.json").read_text(encoding="utf-8"), end="")
    else:
        _print_comparison(folder, document)
    if document["failed"]:
        first, count = document["failed"][0], counted(len(document["failed"]), "points of sweeps")
        raise StudyError(f"{count} failed, first {first['cell']}: {first['reason']}")


def _print_comparison(folder: Path, document: "ComparisonDocument") -> None:
    from tasks.compare.tables import side_by_side

    headline = side_by_side(document)
    rows = [dict(zip(headline.headings, row, strict=True)) for row in headline.rows]
    print_rows(rows, f"{headline.title}: scores with 95 % intervals")
    if headline.note:
        console.print(escape(headline.note))
    print_place("Comparison", folder, ": comparison.html, .json, .md, .tex")


def pretrain(
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of a recipe, as data/recipes/llama-clip.yaml.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting of it, as stages.0.epochs=3; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that receives the base; artifacts/base or artifacts/radiology if not given."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=100, help="Public images to draw for it; 8000 if not given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Every random choice of it follows from this; 0 if not given.")
    ] = None,
    slake: Annotated[
        Path | None, typer.Option(help="Folder of SLAKE; with --vqa-rad, the base radiology is made instead.")
    ] = None,
    vqa_rad: Annotated[Path | None, typer.Option(help="Folder of VQA-RAD, beside --slake.")] = None,
    left_out: Annotated[
        float | None,
        typer.Option(
            min=0.05, max=0.95, help="Share of the training images that radiology does not learn; 0.12 if not given."
        ),
    ] = None,
) -> None:
    """Train a base before a federation: by a recipe, or, without one, one of the two bases that fed-rag comes with.

    These are the embedded base, from nothing, and radiology, from pretrained parts (with --slake and --vqa-rad).

    A recipe's stages follow each other; each is cached, so that after a kill the same command goes on with the stage
    that was not finished. What comes out is artifacts/recipes/NAME, which model.name takes. docs/models.md tells what
    the recipes in data/recipes are.

    Example: fed-rag pretrain --settings data/recipes/radiology-3b.yaml --set stages.0.dataset.root=FOLDER
    """
    given = {"out": out, "images": images, "seed": seed, "slake": slake, "vqa-rad": vqa_rad, "left-out": left_out}
    beside = [name for name, value in given.items() if value is not None]
    if settings and beside:
        raise StudyError(f"Expected no --{beside[0]} beside a recipe, which has settings of its own: leave it out.")
    if assignments and not settings:
        raise StudyError("Expected --settings with a recipe beside --set: name one of the files in data/recipes.")
    if settings:
        made = _by_recipe(load_recipe(settings, tuple(assignments or ())))
    elif slake or vqa_rad:
        made = _radiology(slake, vqa_rad, out or Path("artifacts/radiology"), images, left_out, seed or 0)
    elif left_out is not None:
        raise StudyError("Expected --slake and --vqa-rad beside --left-out, found neither: it is for their images.")
    else:
        made = _embedded(out or Path("artifacts/base"), images or 8000, seed or 0)
    print_place("Base", Path(made))


def _by_recipe(recipe: Recipe) -> str:
    refuse_absent_model(recipe.model)
    for dataset in [stage.dataset for stage in recipe.stages if stage.dataset]:
        refuse_absent_data(dataset)
    with flow_running():
        from flows.pretrain import train_recipe

        return train_recipe(recipe)


def _embedded(out: Path, images: int, seed: int) -> str:
    refuse_unwritable_folder(out)
    with flow_running():
        from flows.pretrain import pretrain as flow

        return flow(out, images, seed=seed)


def _radiology(
    slake: Path | None, vqa_rad: Path | None, out: Path, images: int | None, left_out: float | None, seed: int
) -> str:
    if slake is None or vqa_rad is None:
        raise StudyError("Expected --slake and --vqa-rad together, found one of them: the base learns from both.")
    if images is not None:
        raise StudyError("Expected no --images beside --slake, whose images are all used: leave it out.")
    refuse_unwritable_folder(out)
    for name, root in (("slake", slake), ("vqa-rad", vqa_rad)):
        refuse_absent_data(DatasetSettings(name=name, root=root), folder=f"--{name}")
    with flow_running():
        from flows.radiology import LEFT_OUT, pretrain_radiology

        return pretrain_radiology(slake, vqa_rad, out, left_out=left_out or LEFT_OUT, seed=seed)
