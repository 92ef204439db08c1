"""Plots of scores, and of how the cases are partitioned, as embedded SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.records.comparison import ScoreEntry
from tasks.records.run_document import (
    Calibration,
    ConfigurationScores,
    QuestionKind,
    RelianceSummary,
    RunDocument,
)
from tasks.report.page.figures import REFERENCE, TRAINED, readable, svg

METRICS: tuple[tuple[QuestionKind, str, str], ...] = (
    ("closed", "accuracy", "Closed questions, accuracy"),
    ("open", "exact_match", "Open questions, exact match"),
)
"""Metrics in charts: kind and field in the pooled scores of `results.json`, and a title."""
MANY = 64
"""Most rows that a plot names. A picture of a thousand rows is read by nobody, and takes half a gigabyte to draw."""


def score_plot(results: RunDocument) -> str:
    """Closed accuracy and open exact match (0 to 1) of each configuration and baseline; a dot is one hospital."""
    description = "; ".join(
        f"{readable(name)} closed {_number(row['closed']['accuracy'])}, open {_number(row['open']['exact_match'])}"
        for name, row in (*results["configurations"].items(), *results["baselines"].items())
    )
    return svg(score_figure(results), f"Scores from 0 to 1: {description}")


def score_figure(results: RunDocument) -> Figure:
    """The figure of `score_plot`."""
    trained = list(results["configurations"].items())
    rows = [*trained, *results["baselines"].items()]
    figure = Figure(figsize=(8, 0.8 + 0.36 * len(rows)))
    for axes, (kind, field, title) in zip(figure.subplots(1, 2, sharey=True), METRICS, strict=True):
        _bars(axes, rows, len(trained), kind, field)
        axes.set_title(title, fontsize=10)
    return figure


def _bars(
    axes: Axes, rows: Sequence[tuple[str, ConfigurationScores]], trained: int, kind: QuestionKind, field: str
) -> None:
    values = [row[kind][field] or 0 for _, row in rows]
    colours = [TRAINED if place < trained else REFERENCE for place in range(len(rows))]
    axes.barh(range(len(rows)), values, color=colours, height=0.65)
    for place, (_, row) in enumerate(rows):
        if row[kind][field] is None:
            axes.text(0.02, place, "not asked", va="center", fontsize=8, color="#5a6870")
        scores = (each[kind][field] for each in row["hospitals"].values())
        of_hospitals = [score for score in scores if score is not None]
        axes.plot(of_hospitals, [place] * len(of_hospitals), "o", color="black", markersize=2.5, alpha=0.7)
    axes.set_yticks(range(len(rows)), [readable(name) for name, _ in rows])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top


def group_plot(scores: Sequence[ScoreEntry], configuration: str, group: str) -> str | None:
    """Share of right answers (0 to 1) for each value of a group, such as `modality`, with 95 % intervals.

    None where the group has fewer than two values. Of more than MANY, those with most answers are drawn.
    """
    found = [
        each
        for each in scores
        if (each["configuration"], each["group"], each["measure"]) == (configuration, group, "correct")
    ]
    if len(found) < 2:
        return None
    common = sorted(sorted(range(len(found)), key=lambda place: -found[place]["n"])[:MANY])
    rows = [found[place] for place in common]
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(rows)))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        low, high = row["interval"] or [row["score"]] * 2
        axes.plot([low, high], [place, place], "-", color=TRAINED, linewidth=2)
        axes.plot([row["score"]], [place], "o", color=TRAINED)
    axes.set_yticks(range(len(rows)), [f"{row['value']} ({row['n']})" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    which = f", the {MANY} most frequent of {len(found):,}" if len(found) > MANY else ""
    axes.set_title(f"Right answers by {group}{which}", fontsize=10)
    description = "; ".join(f"{row['value']} {row['score']:.3f} of {row['n']}" for row in rows)
    return svg(figure, f"Right answers of {configuration} by {group}: {description}")


def reliability_plot(name: str, calibration: Calibration) -> str:
    """Share of right answers over confidence in ten bins, with the diagonal of a calibrated model."""
    bins = [each for each in calibration["bins"] if each["n"]]
    figure = Figure(figsize=(8, 3))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=REFERENCE)
    sure = [each["confidence"] / each["n"] for each in bins]
    right = [each["correct"] / each["n"] for each in bins]
    axes.plot(sure, right, "-", color=TRAINED)
    axes.scatter(sure, right, s=[8 + 150 * each["n"] / calibration["n"] for each in bins], color=TRAINED)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean confidence", ylabel="right answers")
    description = "; ".join(
        f"{s:.2f} sure, {r:.2f} right, {each['n']}" for s, r, each in zip(sure, right, bins, strict=True)
    )
    return svg(figure, f"Reliability of {name}, expected calibration error {calibration['ece']:.3f}: {description}")


def reliance_plot(name: str, reliance: RelianceSummary) -> str:
    """Share of right answers (0 to 1) with the original prompts, and with each perturbation."""
    rows = list(reliance["alterations"].items())
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(rows)))
    axes = figure.subplots()
    colours = [TRAINED, *[REFERENCE] * (len(rows) - 1)]
    axes.barh(range(len(rows)), [row["score"] for _, row in rows], color=colours, height=0.65)
    axes.set_yticks(range(len(rows)), [readable(perturbation) for perturbation, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title("Right answers of all questions", fontsize=10)
    description = "; ".join(f"{readable(perturbation)} {row['score']:.3f}" for perturbation, row in rows)
    return svg(figure, f"What {name} relies on: {description}")


def partition_plot(hospitals: Sequence[Mapping[str, Any]]) -> str:
    """A heat map of the number of cases of each kind at each hospital; withheld counts have no colour.

    Of more than MANY hospitals none is named: they stand in the order of their numbers of cases.
    """
    columns = [name for name in hospitals[0] if name not in ("hospital", "images")]
    table = [[row[name] for name in columns] for row in hospitals]
    known = [[count if isinstance(count, int) else math.nan for count in row] for row in table]
    named = len(table) <= MANY
    if not named:
        known.sort(key=lambda row: -sum(count for count in row if not math.isnan(count)))
    figure = Figure(figsize=(8, 0.7 + 0.28 * len(table) if named else 5))
    axes = figure.subplots()
    heat = axes.imshow(known, cmap="GnBu", aspect="auto", vmin=0, interpolation="nearest")
    axes.set_xticks(range(len(columns)), [readable(name) for name in columns])
    axes.spines[:].set_visible(False)
    if named:
        axes.set_yticks(range(len(table)), [row["hospital"] for row in hospitals])
        _write_counts(axes, table, known)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(table):,} hospitals, most cases on top")
        figure.colorbar(heat, label="cases")
    totals = [total(*(row[name] for name in columns)) for row in hospitals]
    description = "; ".join(f"{row['hospital']} {each}" for row, each in zip(hospitals, totals, strict=True))
    return svg(figure, f"Cases of each hospital: {description}")


def _write_counts(axes: Axes, table: Sequence[Sequence[int | str]], known: Sequence[Sequence[float]]) -> None:
    """Write each count into its field, legibly on its colour."""
    most = max((count for row in known for count in row if not math.isnan(count)), default=0)
    for place, row in enumerate(table):
        for column, count in enumerate(row):
            colour = "white" if known[place][column] > 0.6 * most else "black"
            axes.text(column, place, str(count), ha="center", va="center", color=colour)


def total(*counts: int | str) -> int | str:
    """The sum of counts; a text, which marks a withheld count, is returned instead of the sum."""
    return next((count for count in counts if isinstance(count, str)), sum(n for n in counts if isinstance(n, int)))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
