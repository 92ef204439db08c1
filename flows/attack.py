"""The table of attacks: each strategy under each attack, scored at the hospitals that do not attack."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows.attack_tuning import candidates, choose
from flows.attacked import Scenes, run_cell
from flows.gone import HOOKS
from flows.prepare import preparing_steps
from flows.progress import Pace, Steps
from flows.runners.runner import spread, studies_at_once, working_on
from tasks.compare.attack_results import AttackResult, Outcomes, Row, flat, result
from tasks.compare.attack_tables import attack_tables
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.federate.lora_mean.rule import choose_rule
from tasks.records.text_table import markdown
from tasks.report.page.attack import attack_page
from tasks.settings import Study
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import Changes
from tasks.store import ROOT, writing
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")
Found = dict[tuple[Row, str], list[Outcomes | str]]
"""By row and attack, the outcomes of each seed, or why there are none."""


@dataclass(frozen=True)
class AttackCell:
    """One cell of the table, on one seed."""

    row: Row
    attack: str
    study: Study

    @property
    def title(self) -> str:
        """What the terminal and the dashboard call it."""
        return f"{self.row.strategy}, {self.row.byzantine} {self.attack}, seed {self.study.seed}"


@flow(
    name="attack",
    flow_run_name="{table.name} of {table.study.dataset.label}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def attack(table: AttackTable = AttackTable()) -> str:
    """Train each strategy under each attack, and score what the hospitals that do not attack then answer.

    Cells of one seed share all work up to the first aggregation. An interrupted table goes on where it stopped. Returns
    its folder.
    """
    rows = list(planned(table))
    ran, columns = [row for row in rows if not row.refused], ("none", *table.attacks)
    cells = len(ran) * len(columns) * len(table.seeds)
    tuning = sum(len(candidates(row.strategy)) for row in ran) if table.tune else 0
    starts = len({row.hospitals for row in ran}) * len(table.seeds)
    steps = Steps("attack-progress", total=preparing_steps(table.study) * starts + tuning + cells + 1)
    trainings = sum(row.hospitals for row in ran) * len(columns) * len(table.seeds) * table.study.federation.rounds
    logger.info(
        "%s to train, of %s by hospitals at most; the first cells tell how long they take",
        counted(cells, "cells"),
        counted(trainings, "trainings"),
    )
    scenes = Scenes(choose_model(table.study.model), steps)
    with working_on(table.study.engine):
        tuned = {row: choose(table, row, scenes, steps) for row in ran} if tuning else {}
        found = run_cells(table, ran, columns, tuned, scenes, steps)
    results = [
        result(named(row, tuned), name, joined(found[row, name]), joined(found[row, "none"]))
        if row in ran
        else AttackResult(row, name, 0, {})
        for row in rows
        for name in columns
    ]
    folder = write(table, results)
    show(results)
    steps.done(f"wrote {folder}")
    return str(folder)


def planned(table: AttackTable) -> Iterator[Row]:
    """The rows of a table, by number of attackers, then by strategy.

    A strategy that does not bear so many attackers among the study's hospitals has a row that says so, and another with
    the smallest number of hospitals that it takes.
    """
    for byzantine in table.byzantine:
        for strategy in table.strategies:
            hospitals = table.study.partition.hospitals
            if refusal := refused(table, strategy, byzantine, hospitals):
                yield Row(strategy, byzantine, hospitals, refusal)
                hospitals = next(n for n in count(hospitals) if not refused(table, strategy, byzantine, n))
            yield Row(strategy, byzantine, hospitals)


def refused(table: AttackTable, strategy: str, byzantine: int, hospitals: int) -> str:
    """Why a strategy is not run with so many attackers among so many hospitals; empty if it is."""
    study = table.cell(strategy, byzantine, hospitals, table.seeds[0], {})
    try:
        choose_rule(study.federation.server).check_hospitals(hospitals)
    except StudyError as error:
        return str(error)
    return ""


def run_cells(
    table: AttackTable,
    rows: Sequence[Row],
    columns: Sequence[str],
    tuned: Mapping[Row, Changes],
    scenes: Scenes,
    steps: Steps,
) -> Found:
    """Run all cells, seed by seed; on a cluster, as many at once as it has workers."""

    def run(cell: AttackCell) -> tuple[Outcomes | str, float]:
        began = time.perf_counter()
        outcome = run_cell(cell.study, scenes.model, scenes.hospitals(cell.study), cell.attack, cell.title)
        return outcome, time.perf_counter() - began

    planned = [
        AttackCell(row, name, table.cell(row.strategy, row.byzantine, row.hospitals, seed, tuned.get(row, {})))
        for seed in table.seeds
        for row in rows
        for name in columns
    ]
    pace, found = Pace(len(planned)), Found()
    for cell in planned:
        scenes.hospitals(cell.study)  # once for all cells that share them, before any of these begins
    for cell, (this, seconds) in zip(planned, spread(run, planned), strict=True):
        found.setdefault((cell.row, cell.attack), []).append(this)
        steps.done(f"{cell.title}: {told(this)}{pace.done(seconds / studies_at_once())}")
    return found


def told(of: Outcomes | str) -> str:
    """A cell's outcome in a few words."""
    if isinstance(of, str):
        return f"failed, {of}"
    away = f", {of.turned_away} turned away" if of.turned_away else ""
    return f"{sum(each.correct for each in of.answers)} of {len(of.answers)} right{away}"


def named(row: Row, tuned: Mapping[Row, Changes]) -> Row:
    """A row with the settings that its strategy has chosen."""
    return replace(row, tuned=", ".join(f"{name}={value}" for name, value in tuned.get(row, {}).items()))


def joined(of_seeds: Sequence[Outcomes | str]) -> Outcomes | str:
    """The outcomes of all seeds as one; if a seed failed, why."""
    whole = [each for each in of_seeds if isinstance(each, Outcomes)]
    if len(whole) < len(of_seeds):
        return next(each for each in of_seeds if isinstance(each, str))
    return Outcomes(
        [row for each in whole for row in each.answers],
        [row for each in whole for row in each.marked],
        sum(each.turned_away for each in whole),
        sum(each.wronged for each in whole),
    )


def write(table: AttackTable, results: Sequence[AttackResult]) -> Path:
    """Write the folder of a table: its figures as Parquet, its tables as Markdown and as a page, its settings."""
    tables = attack_tables(results)
    settings = table.model_dump(mode="json")
    with writing("", "attacks", table.name) as folder:
        with folder.open("attacks.parquet") as sink:
            pq.write_table(pa.Table.from_pylist([flat(each) for each in results]), sink)
        folder.write("attacks.md", markdown(tables).encode())
        folder.write("attacks.html", attack_page(table.name, table.seeds, tables, settings).encode())
        folder.write_json("settings.json", settings)
    return ROOT / "attacks" / table.name


def show(results: Sequence[AttackResult]) -> None:
    """Show the table in the dashboard: what attacks cost, for each number of attackers, and all tables as Markdown."""
    tables = attack_tables(results)
    for f, costs in enumerate(each for each in tables if each.title.startswith("What attacks cost")):
        rows = [dict(zip(("strategy", *costs.headings[1:]), row, strict=True)) for row in costs.rows]
        create_table_artifact(table=rows, key=f"attack-costs-{f + 1}", description=f"{costs.title}. {costs.note}")
    create_markdown_artifact(markdown=markdown(tables), key="attack-tables", description="Strategies under attack")
