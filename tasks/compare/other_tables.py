"""The tables of a comparison beyond its metrics: LightFED's metrics, perturbed prompts, sweeps, cost."""

from tasks.compare.cells import labels, score_cell
from tasks.records.comparison import ComparisonDocument, Sweep
from tasks.records.explanations import IGNORES
from tasks.records.text_table import Table
from tasks.score.metrics import compared_metrics
from tasks.score.published import LIGHTFED

PERTURBATIONS = {
    "image_blank": "blank image",
    "image_noise": "noise",
    "image_swapped": "another image",
    "neighbours_removed": "no cases",
    "neighbours_shuffled": "others' cases",
    "neighbours_flipped": "wrong cases",
    "question_shuffled": "words shuffled",
}
"""Perturbations of the prompt, as table headings."""


def lightfed_table(document: ComparisonDocument, split: str, title: str) -> Table:
    """LightFED's four metrics on a split."""
    rows = [
        (
            each["label"],
            *("" if (value := row[metric]) is None else f"{value:.3f}" for metric in LIGHTFED),
        )
        for each in document["configurations"]
        for row in document["lightfed"]
        if row["split"] == split and row["configuration"] == each["name"]
    ]
    note = "LightFED's own rules, which credit some wrong answers: for comparison with its figures. Mean of the seeds."
    return Table(f"LightFED's metrics, {title} split", ("", *LIGHTFED), tuple(rows), note)


def reliance_tables(document: ComparisonDocument, split: str, title: str) -> list[Table]:
    """The share of each configuration's score that is left with perturbed prompts; no table where there were none."""
    called = labels(document)
    found = [row for row in document["reliance"] if row["split"] == split]
    if not found:
        return []
    yes_or_no = {True: "yes", False: "no", None: ""}
    rows = [
        (
            called[row["configuration"]],
            *("" if (kept := row["kept"].get(name)) is None else f"{kept:.0%}" for name in PERTURBATIONS),
            yes_or_no[row["ignores_images"]],
        )
        for row in found
    ]
    note = (
        f"Share of its own score that is left, of {min(row['n'] for row in found)} questions of all seeds or more. "
        f"One that keeps {IGNORES:.0%} with a blank image is said to ignore images."
    )
    headings = ("", *PERTURBATIONS.values(), "ignores images")
    return [Table(f"Does it look? {title.capitalize()} split", headings, tuple(rows), note)]


def sweep_tables(document: ComparisonDocument) -> list[Table]:
    """One table for each sweep."""
    return [_sweep(sweep) for sweep in document["sweeps"]]


def _sweep(sweep: Sweep) -> Table:
    rows = []
    for point in sweep["points"]:
        scores = {entry["measure"]: entry for entry in point["scores"]}
        last = point["rounds"][-1]
        rows.append(
            (
                point["label"],
                str(scores["correct"]["n"]),
                *(score_cell(scores.get(metric.name)) for metric in compared_metrics()),
                f"{last['train_loss']:.3f}",
                "" if last["eval_loss"] is None else f"{last['eval_loss']:.3f}",
            )
        )
    metrics = (metric.heading for metric in compared_metrics())
    headings = (sweep["name"], "n", *metrics, "training loss", "held-out loss")
    return Table(f"Sweep of {sweep['name']}", headings, tuple(rows), f"Configuration {sweep['configuration']}.")


def cost_table(document: ComparisonDocument) -> Table:
    """The cost of training each configuration."""
    rows = [
        (
            row["label"],
            _gigabytes(row["peak_memory_bytes"]),
            _gigabytes(row["device_memory_bytes"]),
            f"{row['seconds_per_round']:.1f}",
            f"{row['bytes_down'] / 1e6:.2f}",
            f"{row['bytes_up'] / 1e6:.2f}",
        )
        for row in document["cost"]
    ]
    headings = ("", "peak memory, GB", "of the GPU, GB", "seconds a round", "MB down a round", "MB up a round")
    note = "All hospitals together; adapters as files, nothing else travels."
    return Table("What it took", headings, tuple(rows), note)


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"
