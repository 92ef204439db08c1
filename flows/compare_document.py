"""The document of a comparison, made of its finished runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.cells import BASELINES, references, results
from flows.judged import outcomes
from tasks.answer.step import score_as_lightfed
from tasks.compare.aligned import align, withheld_values, worst_hospitals
from tasks.compare.tables import LIGHTFED
from tasks.compare.tests import paired_tests
from tasks.engine.identity import choose_model
from tasks.federate.step import measure_memory
from tasks.records.federation import HospitalRefs
from tasks.report.data import split_sentence
from tasks.report.perturbation import over_seeds
from tasks.score.measures import Answers, score_entries
from tasks.settings.comparison import Cell, Comparison, labelled
from tasks.store import Ref

SCHEMA_VERSION = 2
Runs = Mapping[tuple[str, str, str, int], Path]
"""Folder of each cell's run, by part, name, split and seed."""


def assemble(
    comparison: Comparison,
    planned: Sequence[Cell],
    runs: Runs,
    same: Mapping[str, str],
    twins: Mapping[str, str],
) -> dict[str, Any]:
    """The document `comparison.json`, as docs/comparison.md lays it out."""
    scores: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    worst: list[dict[str, Any]] = []
    asked: dict[str, dict[str, Any]] = {}
    lightfed: list[dict[str, Any]] = []
    reliance: list[dict[str, Any]] = []
    withheld: dict[str, Any] = {}
    least = comparison.study.evaluation.min_cell
    for split in comparison.splits:
        if split in same:
            continue
        own = {
            (name, seed): run
            for (part, name, where, seed), run in runs.items()
            if where == split and part == "configurations"
        }
        answers = align(by_configuration(comparison, own), comparison.reference)
        asked[split] = images_asked(answers[comparison.reference])
        found = [entry for name, each in answers.items() for entry in score_entries(name, each, least)]
        told = {entry["measure"] for entry in found if entry["group"] == "all"}
        at = {"split": split}
        scores += [at | entry for entry in found]
        tested = paired_tests(answers, list(comparison.configurations), comparison.reference)
        tests += [at | test for test in tested if test["measure"] in told]
        withheld[split] = withheld_values(answers[comparison.reference], least)
        worst += [at | row for row in worst_hospitals(found)]
        lightfed += [at | row for row in as_lightfed(comparison, own)]
        reliance += [at | row for row in looks(comparison, own)]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": comparison.name,
        "reference": comparison.reference,
        "seeds": list(comparison.seeds),
        "splits": [
            {
                "name": split,
                "title": title(comparison, runs, same.get(split, split)),
                "same_as": same.get(split),
                **asked[same.get(split, split)],
            }
            for split in comparison.splits
        ],
        "configurations": configurations(comparison, planned, twins),
        "scores": scores,
        "withheld": {"min_cell": least, "groups": withheld},
        "worst_hospitals": worst,
        "tests": tests,
        "lightfed": lightfed,
        "reliance": reliance,
        "sweeps": sweeps(comparison, runs),
        "cost": cost(comparison, planned, runs, twins) if comparison.cost else [],
        "runs": [
            {"part": part, "name": name, "split": split, "seed": seed, "run": run.name}
            for (part, name, split, seed), run in runs.items()
        ],
        "settings": comparison.model_dump(mode="json"),
    }


def title(comparison: Comparison, runs: Runs, split: str) -> str:
    """What a split's test cases share with training, by the audits of all seeds."""
    own = [runs["configurations", comparison.reference, split, seed] for seed in comparison.seeds]
    return split_sentence([results(run)["split"] for run in own])


def images_asked(answers: Answers) -> dict[str, Any]:
    """How many images are asked about, each seed's and all seeds' together, an image of several seeds counted once."""
    seeds = dict.fromkeys(answers.seeds)
    own = {
        seed: {image for image, at in zip(answers.images, answers.seeds, strict=True) if at == seed} for seed in seeds
    }
    return {"images": len(set(answers.images)), "images_by_seed": {str(seed): len(own[seed]) for seed in seeds}}


def by_configuration(comparison: Comparison, runs: Mapping[tuple[str, int], Path]) -> dict[str, Any]:
    """Outcomes by row of the tables and seed: the configurations, then the reference's baselines."""
    found: dict[str, Any] = {
        name: {seed: outcomes(runs[name, seed])["trained"] for seed in comparison.seeds}
        for name in comparison.configurations
    }
    for seed in comparison.seeds:
        shared = outcomes(runs[comparison.reference, seed])
        for name in BASELINES:
            found.setdefault(name, {})[seed] = shared[name]
    return found


def as_lightfed(comparison: Comparison, runs: Mapping[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """LightFED's four metrics of each row, the mean over the seeds and each seed's."""
    by_seed: dict[str, dict[int, dict[str, float | None]]] = {}
    for (name, seed), run in runs.items():
        scored = score_as_lightfed(predictions=references(run, "predictions"))
        told = json.loads((scored.folder / "lightfed.json").read_text(encoding="utf-8"))
        (trained,) = results(run)["configurations"]
        by_seed.setdefault(name, {})[seed] = told[trained]
        if name == comparison.reference:
            for each in BASELINES:
                by_seed.setdefault(each, {})[seed] = told[each]
    rows = []
    for name, found in by_seed.items():
        row: dict[str, Any] = {"configuration": name}
        for metric in LIGHTFED:
            values = [each[metric] for each in found.values()]
            told_of = [value for value in values if value is not None]
            row[metric] = sum(told_of) / len(told_of) if len(told_of) == len(values) else None
        rows.append(row | {"by_seed": {str(seed): each for seed, each in found.items()}})
    return rows


def looks(comparison: Comparison, runs: Mapping[tuple[str, int], Path]) -> list[dict[str, Any]]:
    """What each configuration keeps of its score with altered prompts, the seeds together; nothing where none were."""
    rows = []
    for name in comparison.configurations:
        told = [each for seed in comparison.seeds for each in results(runs[name, seed])["reliance"].values()]
        if told:
            rows.append({"configuration": name, **over_seeds(told)})
    return rows


def configurations(comparison: Comparison, planned: Sequence[Cell], twins: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of every table: what each is called, whether it was trained, what it changes in the base study."""
    rows = []
    for name, changes in comparison.configurations.items():
        preset = str(changes.get("model.name", comparison.study.model.name))
        label = f"{name} (twin of {preset}: random weights)" if preset in twins else name
        rows.append({"name": name, "label": label, "trained": True, "changes": changes, "twin": preset in twins})
    for name in BASELINES:
        label = "untrained base" if name == "base" else name.replace("_", " ")
        rows.append({"name": name, "label": label, "trained": False, "changes": {}, "twin": False})
    return rows


def sweeps(comparison: Comparison, runs: Runs) -> list[dict[str, Any]]:
    """Each sweep's points: their scores over all seeds, and losses by round."""
    found = []
    for sweep, values in comparison.sweeps.items():
        points = []
        for label, changes in labelled(sweep, values):
            own = {seed: run for (part, name, _, seed), run in runs.items() if (part, name) == (sweep, label)}
            if own:
                rows = {label: {seed: outcomes(run)["trained"] for seed, run in own.items()}}
                least = comparison.study.evaluation.min_cell
                entries = list(score_entries(label, align(rows, label)[label], least))
                points.append(
                    {
                        "label": label,
                        "changes": changes,
                        "local_epochs": results(next(iter(own.values())))["settings"]["federation"]["local_epochs"],
                        "seeds": list(own),
                        "scores": [entry for entry in entries if entry["group"] == "all"],
                        "rounds": mean_rounds([results(run)["rounds"] for run in own.values()]),
                    }
                )
        if points:
            found.append({"name": sweep, "configuration": comparison.swept, "points": points})
    return found


def mean_rounds(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Losses of each round, the mean over the seeds."""
    rows = []
    for same in zip(*rounds, strict=True):
        row: dict[str, Any] = {"round": same[0]["round"]}
        for loss in ("train_loss", "eval_loss"):
            values = [each[loss] for each in same]
            row[loss] = None if None in values else sum(values) / len(values)
        rows.append(row)
    return rows


def cost(comparison: Comparison, planned: Sequence[Cell], runs: Runs, twins: Mapping[str, str]) -> list[dict[str, Any]]:
    """What training took: seconds and bytes of a round, the mean over rounds and seeds; memory of one hospital's."""
    rows = []
    split = comparison.splits[0]
    labels = {row["name"]: row["label"] for row in configurations(comparison, planned, twins)}
    for name in comparison.configurations:
        own = [runs["configurations", name, split, seed] for seed in comparison.seeds]
        rounds = [row for run in own for row in results(run)["rounds"]]
        cell = next(cell for cell in planned if (cell.name, cell.split) == (name, split))
        mean = {
            field: sum(row[field] for row in rounds) / len(rounds) for field in ("seconds", "bytes_down", "bytes_up")
        }
        measured = json.loads((memory(cell, own[0]).folder / "footprint.json").read_text(encoding="utf-8"))
        rows.append(
            {
                "configuration": name,
                "label": labels[name],
                "model": cell.study.model.name,
                "hospitals": len(results(own[0])["partition"]["hospitals"]),
                "seconds_per_round": mean["seconds"],
                "bytes_down": mean["bytes_down"],
                "bytes_up": mean["bytes_up"],
                "peak_memory_bytes": measured["peak_memory_bytes"],
                "device_memory_bytes": measured["device_memory_bytes"],
            }
        )
    return rows


def memory(cell: Cell, run: Path) -> Ref:
    """The memory of training the run's first hospital, in a process of its own."""
    parts = {name: references(run, name)[0] for name in ("cases", "features", "library", "adapter")}
    study = cell.study
    return measure_memory(
        hospital=HospitalRefs(name="hospital-1", **parts),
        model=choose_model(study.model),
        lora=study.lora,
        federation=study.federation.local,
        shown=study.retrieval.shown,
        seed=study.seed,
    )
