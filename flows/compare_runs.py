"""Reads the finished runs of a comparison, and makes the parts of its document from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.cells import references, results
from flows.judged import outcomes
from tasks.answer.step import score_as_lightfed
from tasks.compare.document import BASELINES, SplitPart, compare_split, cost_row, sweep_point
from tasks.engine.identity import choose_model
from tasks.federate.step import measure_memory
from tasks.records import Outcome
from tasks.records.comparison import ConfigurationRow, CostRow, SeenRow, Sweep
from tasks.records.federation import HospitalRefs
from tasks.records.shared_documents import SeenCounts
from tasks.report.data import split_sentence
from tasks.report.seen import seen_sentence
from tasks.settings import Study
from tasks.settings.comparison import Cell, Comparison, labelled
from tasks.store import Ref
from tasks.store.runs import open_run

Runs = Mapping[tuple[str, str, str, int], Path]
"""The folder of each cell's run, by part, name, split and seed."""


def read_split(comparison: Comparison, split: str, runs: Runs) -> SplitPart:
    """Compare the runs of one split."""
    of_split = {
        (name, seed): run
        for (part, name, where, seed), run in runs.items()
        if where == split and part == "configurations"
    }
    reliance = {
        name: [each for seed in comparison.seeds for each in results(of_split[name, seed])["reliance"].values()]
        for name in comparison.configurations
    }
    return compare_split(comparison, split, _outcomes(comparison, of_split), _lightfed(comparison, of_split), reliance)


def _outcomes(comparison: Comparison, runs: Mapping[tuple[str, int], Path]) -> dict[str, dict[int, list[Outcome]]]:
    """Outcomes by table row, then by seed: the configurations, then the baselines of the reference."""
    found = {
        name: {seed: outcomes(runs[name, seed])["trained"] for seed in comparison.seeds}
        for name in comparison.configurations
    }
    for seed in comparison.seeds:
        shared = outcomes(runs[comparison.reference, seed])
        for name in BASELINES:
            found.setdefault(name, {})[seed] = shared[name]
    return found


def _lightfed(comparison: Comparison, runs: Mapping[tuple[str, int], Path]) -> dict[str, dict[int, Any]]:
    """LightFED's four metrics, by table row, then by seed."""
    found: dict[str, dict[int, Any]] = {}
    for (name, seed), run in runs.items():
        scored = score_as_lightfed(predictions=references(run, "predictions"))
        scores = json.loads((scored.folder / "lightfed.json").read_text(encoding="utf-8"))
        trained = open_run(run)[0].configuration  # a personal one may stand beside it
        found.setdefault(name, {})[seed] = scores[trained]
        if name == comparison.reference:
            for each in BASELINES:
                found.setdefault(each, {})[seed] = scores[each]
    return found


def read_title(comparison: Comparison, split: str, runs: Runs) -> str:
    """A sentence on what a split's test cases share with training, from the audits of all seeds."""
    of_seeds = [runs["configurations", comparison.reference, split, seed] for seed in comparison.seeds]
    return split_sentence([results(run)["split"] for run in of_seeds])


def read_sweeps(comparison: Comparison, runs: Runs) -> list[Sweep]:
    """Each sweep's points: scores over all seeds, and losses by round. Points without a run are left out."""
    found: list[Sweep] = []
    least = comparison.study.evaluation.min_cell
    for sweep, values in comparison.sweeps.items():
        points = []
        for label, changes in labelled(sweep, values):
            by_seed = {seed: run for (part, name, _, seed), run in runs.items() if (part, name) == (sweep, label)}
            if by_seed:
                answers = {seed: outcomes(run)["trained"] for seed, run in by_seed.items()}
                documents = {seed: results(run) for seed, run in by_seed.items()}
                points.append(sweep_point(label, changes, answers, documents, least))
        if points:
            found.append({"name": sweep, "configuration": comparison.swept, "points": points})
    return found


def read_seen(runs: Runs) -> list[SeenRow]:
    """The sentences on test images that a base was trained on, each with the configurations or points it holds of."""
    counts: dict[tuple[str, str, str], list[SeenCounts]] = {}
    for (part, name, split, _), run in runs.items():
        found = results(run)["seen"]
        counts.setdefault((part, split, name), []).extend([found["images"]] if found else [])
    names: dict[tuple[str, str, str], list[str]] = {}
    for (part, split, name), of_seeds in counts.items():
        if sentence := seen_sentence(of_seeds):
            names.setdefault((part, split, sentence), []).append(name)
    return [
        {"part": part, "split": split, "names": named, "sentence": sentence}
        for (part, split, sentence), named in names.items()
    ]


def read_cost(
    comparison: Comparison, rows: Sequence[ConfigurationRow], planned: Sequence[Cell], runs: Runs
) -> list[CostRow]:
    """The cost of training each configuration; `rows` are the configurations of the tables."""
    found = []
    split = comparison.splits[0]
    for row in rows:
        if row["trained"]:
            of_seeds = [runs["configurations", row["name"], split, seed] for seed in comparison.seeds]
            study = next(cell.study for cell in planned if (cell.name, cell.split) == (row["name"], split))
            memory = json.loads((_memory(study, of_seeds[0]).folder / "footprint.json").read_text(encoding="utf-8"))
            found.append(cost_row(row, study.model.name, [results(run) for run in of_seeds], memory))
    return found


def _memory(study: Study, run: Path) -> Ref:
    """Measure the memory of training the run's first hospital, in a separate process."""
    parts = {name: references(run, name)[0] for name in ("cases", "features", "library", "adapter")}
    return measure_memory(
        hospital=HospitalRefs(name="hospital-1", **parts),
        model=choose_model(study.model),
        lora=study.lora,
        federation=study.federation.local,
        context=study.retrieval.context,
        seed=study.seed,
    )
