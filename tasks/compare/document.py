"""Builds `comparison.json` (layout in docs/comparison.md) from the results of its finished studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.compare.aligned import Outcomes, align
from tasks.compare.reliance import reliance_row
from tasks.compare.scores import score_entries, withheld_values, worst_hospitals
from tasks.compare.tests import paired_tests
from tasks.engine.families.registry import PRESETS
from tasks.records import Outcome
from tasks.records.comparison import (
    ComparisonDocument,
    ConfigurationRow,
    CostRow,
    Images,
    RelianceRow,
    RoundLoss,
    RunRow,
    SeenRow,
    SplitRow,
    SplitScore,
    SplitTest,
    SplitWorst,
    Sweep,
    SweepPoint,
)
from tasks.score.published import LIGHTFED
from tasks.settings.comparison import Changes, Comparison

SCHEMA_VERSION = 3
BASELINES = ("base", "majority", "question_only", "image_and_question", "copy_nearest")
"""Rows of the tables that are not trained; they come from the reference's runs."""


@dataclass(frozen=True)
class SplitPart:
    """All that a comparison reports about one split; splits with the same cases share one."""

    images: Images
    scores: list[SplitScore]
    tests: list[SplitTest]
    worst: list[SplitWorst]
    withheld: dict[str, list[str]]
    """Withheld values, by group."""
    lightfed: list[dict[str, Any]]
    reliance: list[RelianceRow]


def compare_split(
    comparison: Comparison,
    split: str,
    outcomes: Outcomes,
    lightfed: Mapping[str, Mapping[int, Mapping[str, float | None]]],
    reliance: Mapping[str, Sequence[Mapping[str, Any]]],
) -> SplitPart:
    """Compare the configurations on one split: scores, paired tests, and what the scores depend on.

    Args:
        comparison: its settings.
        split: name of the split.
        outcomes: of the configurations and BASELINES, by seed.
        lightfed: LightFED's four metrics of the same, by seed.
        reliance: the summaries of each configuration's seeds; empty where no prompts were perturbed.

    Raises StudyError where the configurations did not answer the same cases.
    """
    least = comparison.study.evaluation.min_cell
    answers = align(outcomes, comparison.reference)
    found = [entry for name, each in answers.items() for entry in score_entries(name, each, least)]
    reported = {entry["measure"] for entry in found if entry["group"] == "all"}
    tested = paired_tests(answers, list(comparison.configurations), comparison.reference)
    return SplitPart(
        images=answers[comparison.reference].image_counts(),
        scores=[{"split": split, **entry} for entry in found],
        tests=[{"split": split, **test} for test in tested if test["measure"] in reported],
        worst=[{"split": split, **row} for row in worst_hospitals(found)],
        withheld=withheld_values(answers[comparison.reference], least),
        lightfed=[_lightfed_row(split, name, by_seed) for name, by_seed in lightfed.items()],
        reliance=[reliance_row(split, name, seeds) for name, seeds in reliance.items() if seeds],
    )


def _lightfed_row(split: str, name: str, by_seed: Mapping[int, Mapping[str, float | None]]) -> dict[str, Any]:
    """The mean over the seeds, None where a seed has none, and the metrics of each seed."""
    means = {metric: _mean([each[metric] for each in by_seed.values()]) for metric in LIGHTFED}
    seeds = {str(seed): each for seed, each in by_seed.items()}
    return {"split": split, "configuration": name, **means, "by_seed": seeds}


def configuration_rows(comparison: Comparison, stand_ins: Mapping[str, str]) -> list[ConfigurationRow]:
    """The rows of every table, in order. `stand_ins` are by preset the preset in its place, or a twin's folder."""
    rows: list[ConfigurationRow] = []
    for name, changes in comparison.configurations.items():
        preset = str(changes.get("model.name", comparison.study.model.name))
        stand_in = stand_ins.get(preset)
        twin = stand_in is not None and stand_in not in PRESETS
        label = name
        if stand_in is not None:
            label += f" (twin of {preset}: random weights)" if twin else f" ({stand_in} in place of {preset})"
        rows.append({"name": name, "label": label, "trained": True, "changes": changes, "twin": twin})
    for name in BASELINES:
        label = "untrained base" if name == "base" else name.replace("_", " ")
        rows.append({"name": name, "label": label, "trained": False, "changes": {}, "twin": False})
    return rows


def sweep_point(
    label: str,
    changes: Changes,
    outcomes: Mapping[int, Sequence[Outcome]],
    results: Mapping[int, Mapping[str, Any]],
    least: int,
) -> SweepPoint:
    """One point of a sweep, from the outcomes and the `results.json` of its seeds; `least` as in `score_entries`."""
    entries = score_entries(label, align({label: outcomes}, label)[label], least)
    return {
        "label": label,
        "changes": changes,
        "local_epochs": next(iter(results.values()))["settings"]["federation"]["local_epochs"],
        "seeds": list(results),
        "scores": [entry for entry in entries if entry["group"] == "all"],
        "rounds": _mean_rounds([each["rounds"] for each in results.values()]),
    }


def _mean_rounds(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> list[RoundLoss]:
    """Losses of each round: the mean over the seeds."""
    return [
        {
            "round": same[0]["round"],
            "train_loss": sum(each["train_loss"] for each in same) / len(same),
            "eval_loss": _mean([each["eval_loss"] for each in same]),
        }
        for same in zip(*rounds, strict=True)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of the values is None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def cost_row(
    configuration: ConfigurationRow,
    model: str,
    results: Sequence[Mapping[str, Any]],
    memory: Mapping[str, int | None],
) -> CostRow:
    """The cost of training a configuration: seconds and bytes are means over the rounds of all seeds.

    Args:
        configuration: its row.
        model: name of its base model.
        results: `results.json` of each seed.
        memory: `peak_memory_bytes` and `device_memory_bytes` of training the first hospital.
    """
    rounds = [row for each in results for row in each["rounds"]]
    return {
        "configuration": configuration["name"],
        "label": configuration["label"],
        "model": model,
        "hospitals": len(results[0]["partition"]["hospitals"]),
        "seconds_per_round": sum(row["seconds"] for row in rounds) / len(rounds),
        "bytes_down": sum(row["bytes_down"] for row in rounds) / len(rounds),
        "bytes_up": sum(row["bytes_up"] for row in rounds) / len(rounds),
        "peak_memory_bytes": memory["peak_memory_bytes"],
        "device_memory_bytes": memory["device_memory_bytes"],
    }


def assemble(
    comparison: Comparison,
    configurations: list[ConfigurationRow],
    parts: Mapping[str, SplitPart],
    titles: Mapping[str, str],
    same: Mapping[str, str],
    sweeps: list[Sweep],
    cost: list[CostRow],
    runs: list[RunRow],
    seen: list[SeenRow],
    failed: Sequence[Mapping[str, str]],
) -> ComparisonDocument:
    """Assemble the whole document.

    Args:
        comparison: its settings.
        configurations: as `configuration_rows` returns them.
        parts: by split, for the splits that differ.
        titles: of these splits.
        same: each other split, with the split that has the same assignment of cases.
        sweeps: their points.
        cost: of training; empty where it was not measured.
        runs: the run of every study.
        seen: sentences on test images that a base was trained on.
        failed: points of sweeps that failed, as `cell` and `reason`.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "name": comparison.name,
        "reference": comparison.reference,
        "seeds": list(comparison.seeds),
        "splits": [_split_row(split, parts, titles, same) for split in comparison.splits],
        "configurations": configurations,
        "scores": [entry for part in parts.values() for entry in part.scores],
        "withheld": {
            "min_cell": comparison.study.evaluation.min_cell,
            "groups": {split: part.withheld for split, part in parts.items()},
        },
        "seen": seen,
        "worst_hospitals": [row for part in parts.values() for row in part.worst],
        "tests": [test for part in parts.values() for test in part.tests],
        "lightfed": [row for part in parts.values() for row in part.lightfed],
        "reliance": [row for part in parts.values() for row in part.reliance],
        "sweeps": sweeps,
        "cost": cost,
        "runs": runs,
        "settings": comparison.model_dump(mode="json"),
        "failed": failed,
    }


def _split_row(
    split: str, parts: Mapping[str, SplitPart], titles: Mapping[str, str], same: Mapping[str, str]
) -> SplitRow:
    at = same.get(split, split)
    return {"name": split, "title": titles[at], "same_as": same.get(split), **parts[at].images}
