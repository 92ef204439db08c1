"""The comparison: one study per configuration, split, seed and point of a sweep, and one document of all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cells import run_cells, with_stand_ins
from flows.compare_runs import Runs, read_cost, read_seen, read_split, read_sweeps, read_title
from flows.gone import HOOKS
from flows.outside import dataset_content
from flows.prepare import prepare_questions, prepares
from flows.progress import Pace, Steps
from flows.runners.runner import studies_at_once, working_on
from flows.shared_artifacts import share
from tasks.audit.step import audit
from tasks.compare.document import assemble, configuration_rows
from tasks.compare.tables import side_by_side, tables
from tasks.errors import StudyError
from tasks.ingest.step import ingest
from tasks.partition.step import partition
from tasks.records.comparison import ComparisonDocument
from tasks.records.text_table import latex, markdown
from tasks.report.page.comparison import comparison_page
from tasks.settings.comparison import Cell, Comparison, cells
from tasks.store import ROOT, writing
from tasks.store.runs import point_latest
from tasks.text.wording import counted


@flow(
    name="compare",
    flow_run_name="{comparison.name} of {comparison.study.dataset.label}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def compare(comparison: Comparison = Comparison()) -> str:
    """Run every configuration on the same cases, seeds and budget, run the sweeps, and test the differences.

    Each cell is a study of the flow `fed-rag`. Finished studies are reused, so an interrupted comparison continues
    where it stopped. Returns the folder of the comparison.
    """
    share(comparison.study.artifacts.root)
    planned, stand_ins = with_stand_ins(cells(comparison))
    splits = dict.fromkeys((cell.split, cell.seed) for cell in planned)
    steps = Steps("comparison-progress", total=len(planned) + 1 + prepares(comparison.study) * len(splits))
    same = same_splits(planned, steps)
    runs: dict[tuple[str, str, str, int], Path] = {}
    failed: list[dict[str, str]] = []
    wanted = [cell for cell in planned if cell.split not in same]
    for cell in planned:
        if cell.split in same:
            steps.done(f"{cell.title}: the same cases as split {same[cell.split]}")
    pace = Pace(len(wanted))
    with working_on(comparison.study.engine):
        for each in run_cells(wanted):
            cell, left = each.cell, pace.done(each.seconds and each.seconds / studies_at_once())
            if each.run:
                runs[cell.part, cell.name, cell.split, cell.seed] = each.run
                steps.done(f"{cell.title}: {'ran' if each.seconds else 'found'} {each.run.name}{left}")
            else:
                failed.append({"cell": cell.title, "reason": each.reason})
                steps.done(f"{cell.title}: failed, {each.reason}{left}")
    refuse_gaps(comparison, runs, same, failed)
    document = read_document(comparison, planned, runs, same, stand_ins, failed)
    folder = write(comparison.name, document)
    # Commands such as `fed-rag ask` use the latest run: let this be the reference, not the last point of a sweep.
    point_latest(runs["configurations", comparison.reference, comparison.splits[0], comparison.seeds[0]])
    show(document)
    steps.done(f"wrote {folder}")
    return str(folder)


def same_splits(planned: Sequence[Cell], steps: Steps) -> dict[str, str]:
    """The splits that assign every case as the first split does, each mapped to the first."""
    seen: dict[str, list[Any]] = {}
    for cell in {(cell.split, cell.seed): cell for cell in planned}.values():
        study = cell.study
        dataset = ingest(settings=study.dataset, content=dataset_content(study.dataset), seed=study.seed)
        questions = prepare_questions(study, dataset, steps)
        findings = audit(cases=questions, dataset=dataset, seed=study.seed)
        assigned = partition(cases=questions, settings=study.partition, seed=study.seed, findings=findings)
        table = pq.read_table(assigned.folder / "splits.parquet", columns=["case_id", "split"])
        seen.setdefault(cell.split, []).append((cell.seed, table.to_pydict()))
    first = next(iter(seen))
    return {split: first for split, found in seen.items() if split != first and found == seen[first]}


def refuse_gaps(
    comparison: Comparison, runs: Runs, same: Mapping[str, str], failed: Sequence[Mapping[str, str]]
) -> None:
    """Raise StudyError if a configuration lacks a run: the others could not be compared fairly."""
    wanted: set[tuple[str, str, str, int]] = {
        ("configurations", name, split, seed)
        for name in comparison.configurations
        for split in comparison.splits
        for seed in comparison.seeds
        if split not in same
    }
    if wanted - set(runs):
        raise StudyError(
            f"{counted(len(failed), 'studies')} failed, first {failed[0]['cell']}: {failed[0]['reason']} "
            "(the others are kept: run it again once this is mended)"
        )


def read_document(
    comparison: Comparison,
    planned: Sequence[Cell],
    runs: Runs,
    same: Mapping[str, str],
    stand_ins: Mapping[str, str],
    failed: Sequence[Mapping[str, str]],
) -> ComparisonDocument:
    """Assemble the document of all runs: splits, sweeps, cost."""
    different = [split for split in comparison.splits if split not in same]
    rows = configuration_rows(comparison, stand_ins)
    return assemble(
        comparison,
        configurations=rows,
        parts={split: read_split(comparison, split, runs) for split in different},
        titles={split: read_title(comparison, split, runs) for split in different},
        same=same,
        sweeps=read_sweeps(comparison, runs),
        cost=read_cost(comparison, rows, planned, runs) if comparison.cost else [],
        runs=[
            {"part": part, "name": name, "split": split, "seed": seed, "run": run.name}
            for (part, name, split, seed), run in runs.items()
        ],
        seen=read_seen(runs),
        failed=failed,
    )


def write(name: str, document: ComparisonDocument) -> Path:
    """Write the folder of a comparison: its document, its tables as Markdown and LaTeX, its page."""
    found = [side_by_side(document), *tables(document)]
    with writing("", "comparisons", name) as folder:
        folder.write_json("comparison.json", document)
        folder.write("comparison.md", markdown(found).encode())
        folder.write("comparison.tex", latex(found).encode())
        folder.write("comparison.html", comparison_page(document, found).encode())
    return ROOT / "comparisons" / name


def show(document: ComparisonDocument) -> None:
    """Show the comparison in the dashboard: the headline as a table, all tables as Markdown."""
    headline = side_by_side(document)
    rows = [dict(zip(headline.headings, row, strict=True)) for row in headline.rows]
    described = f"Scores of each configuration, with 95 % intervals. {headline.note}".strip()
    create_table_artifact(table=rows, key="comparison", description=described)
    found = markdown([headline, *tables(document)])
    create_markdown_artifact(markdown=found, key="comparison-tables", description="All tables of the comparison")
