"""The plots of a page as embedded SVG, which needs no file and no network."""

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.records import EpochLoss
from tasks.records.comparison import ScoreEntry
from tasks.records.run_document import (
    Calibration,
    ConfigurationScores,
    HospitalShares,
    QuestionKind,
    RelianceSummary,
    RunDocument,
)

TRAINED, REFERENCE = "#0b6e8f", "#9aa5ad"
"""Colours of trained configurations and of baselines, also distinct in grey print."""
HELD_OUT = "#d1495b"
PARTS = {
    "query_image": ("question's image", "#D55E00"),
    "retrieved_images": ("retrieved images", "#E69F00"),
    "retrieved_text": ("retrieved text", "#56B4E9"),
    "question": ("question", "#0072B2"),
    "format": ("format", "#B4B4B4"),
}
"""Label and colour of each part of the prompt (colours after Okabe and Ito, distinct for the colour-blind)."""
METRICS: tuple[tuple[QuestionKind, str, str], ...] = (
    ("closed", "accuracy", "Closed questions, accuracy"),
    ("open", "exact_match", "Open questions, exact match"),
)
"""Metrics in charts: kind and field in the pooled scores of `results.json`, and a title."""


def loss_plot(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Training and held-out loss, in nats per answer token, over the rounds of `results.json`."""
    figure = Figure(figsize=(8, 2.6))
    axes = figure.subplots()
    numbers = [row["round"] for row in rounds]
    axes.plot(numbers, [row["train_loss"] for row in rounds], "o-", color=TRAINED, label="training")
    held_out = [(row["round"], row["eval_loss"]) for row in rounds if row["eval_loss"] is not None]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "s--", color=HELD_OUT, label="held out")
    axes.set_xticks(numbers)
    axes.set_xlabel("round")
    axes.set_ylabel("loss per answer token")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    first, last = rounds[0], rounds[-1]
    return svg(
        figure,
        f"Training loss by round, from {first['train_loss']:.3f} to {last['train_loss']:.3f}"
        + (f"; held-out loss from {held_out[0][1]:.3f} to {held_out[-1][1]:.3f}" if held_out else ""),
    )


def losses_png(rows: Sequence[EpochLoss]) -> bytes:
    """Training and held-out loss, in nats per answer token, over the epochs of each stage, side by side; a PNG.

    A ring marks the epoch whose weights were kept.
    """
    stages = list(dict.fromkeys(row.stage for row in rows))
    figure = Figure(figsize=(max(4.0, 3.2 * len(stages)), 2.8), layout="tight")
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        epochs = [row for row in rows if row.stage == stage]
        training = [(row.epoch, row.train_loss) for row in epochs]
        held_out = [(row.epoch, row.held_out_loss) for row in epochs if row.held_out_loss is not None]
        kept = [point for row, point in zip(epochs, held_out or training, strict=True) if row.kept]
        axes.plot(*zip(*training, strict=True), "o-", color=TRAINED, label="training")
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "s--", color=HELD_OUT, label="held out")
        axes.plot(*zip(*kept, strict=True), "o", color="black", fillstyle="none", markersize=12, label="kept")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("round" if stage == "federation" else "epoch")
        axes.set_ylim(0, 1.1 * max(loss for _, loss in [*training, *held_out]))
        axes.set_title(stage, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("loss per answer token")
    figure.axes[-1].legend(frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    return drawn.getvalue()


def score_plot(results: RunDocument) -> str:
    """Closed accuracy and open exact match (0 to 1) of each configuration and baseline; a dot is one hospital."""
    description = "; ".join(
        f"{_name(name)} closed {_number(row['closed']['accuracy'])}, open {_number(row['open']['exact_match'])}"
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


def group_plot(scores: Sequence[ScoreEntry], configuration: str, group: str) -> str | None:
    """Share of right answers (0 to 1) for each value of a group, such as `modality`, with 95 % intervals.

    None where the group has fewer than two values.
    """
    rows = [
        each
        for each in scores
        if (each["configuration"], each["group"], each["measure"]) == (configuration, group, "correct")
    ]
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(rows)))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        low, high = row["interval"] or [row["score"]] * 2
        axes.plot([low, high], [place, place], "-", color=TRAINED, linewidth=2)
        axes.plot([row["score"]], [place], "o", color=TRAINED)
    axes.set_yticks(range(len(rows)), [f"{row['value']} ({row['n']})" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title(f"Right answers by {group}", fontsize=10)
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
    axes.set_yticks(range(len(rows)), [_name(perturbation) for perturbation, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title("Right answers of all questions", fontsize=10)
    description = "; ".join(f"{_name(perturbation)} {row['score']:.3f}" for perturbation, row in rows)
    return svg(figure, f"What {name} relies on: {description}")


def share_plot(name: str, saliency: HospitalShares) -> str:
    """Mean shares (0 to 1) of the prompt's parts in the explained answers, a bar for each method."""
    description = "; ".join(
        f"{method} {', '.join(f'{PARTS[part][0]} {share:.3f}' for part, share in shares.items())}"
        for method, shares in saliency["methods"].items()
    )
    return svg(share_figure(saliency), f"Where answers of {name} come from: {description}")


def share_figure(saliency: HospitalShares) -> Figure:
    """The figure of `share_plot`."""
    rows = list(saliency["methods"].items())
    figure = Figure(figsize=(8, 1.2 + 0.36 * len(rows)))
    axes = figure.subplots()
    for place, (_, shares) in enumerate(rows):
        share_bar(axes, place, shares)
    axes.set_yticks(range(len(rows)), [method for method, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title(f"Where answers come from ({saliency['n']} explained)", fontsize=10)
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    key = axes.legend(list(handles.values()), list(handles), ncols=len(PARTS), fontsize=8, frameon=False)
    key.set_loc("upper center")
    key.set_bbox_to_anchor((0.5, -0.18), axes.transAxes)
    return figure


def share_bar(axes: Axes, place: int, shares: Mapping[str, float]) -> None:
    """Draw one bar of the shares of a prompt's parts; larger shares show their value."""
    start = 0.0
    for part, share in shares.items():
        name, colour = PARTS[part]
        axes.barh([place], [share], left=start, color=colour, edgecolor="white", height=0.65, label=name)
        if share >= 0.06:
            text = axes.text(start + share / 2, place, f"{share:.0%}", color="white", weight="bold", fontsize=9)
            text.set(ha="center", va="center")
        start += share


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
    axes.set_yticks(range(len(rows)), [_name(name) for name, _ in rows])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top


def partition_plot(hospitals: Sequence[Mapping[str, Any]]) -> str:
    """A heat map of the number of cases of each kind at each hospital; withheld counts have no colour."""
    columns = [name for name in hospitals[0] if name not in ("hospital", "images")]
    table = [[row[name] for name in columns] for row in hospitals]
    figure = Figure(figsize=(8, 0.7 + 0.28 * len(table)))
    axes = figure.subplots()
    known = [[count if isinstance(count, int) else math.nan for count in row] for row in table]
    axes.imshow(known, cmap="GnBu", aspect="auto", vmin=0)
    axes.set_xticks(range(len(columns)), [_name(name) for name in columns])
    axes.set_yticks(range(len(table)), [row["hospital"] for row in hospitals])
    axes.spines[:].set_visible(False)
    most = max((count for row in known for count in row if not math.isnan(count)), default=0)
    for place, row in enumerate(table):
        for column, count in enumerate(row):
            colour = "white" if known[place][column] > 0.6 * most else "black"
            axes.text(column, place, count, ha="center", va="center", color=colour)
    description = "; ".join(f"{row['hospital']} {total(*(row[name] for name in columns))}" for row in hospitals)
    return svg(figure, f"Cases of each hospital: {description}")


def total(*counts: int | str) -> int | str:
    """The sum of counts; a text, which marks a withheld count, is returned instead of the sum."""
    return next((count for count in counts if isinstance(count, str)), sum(n for n in counts if isinstance(n, int)))


def _name(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def png(figure: Figure) -> bytes:
    """The figure as a PNG of moderate size, for places that do not show SVG."""
    figure.set_layout_engine("tight")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80, metadata={"Software": None})
    return drawn.getvalue()


def svg(figure: Figure, description: str) -> str:
    """The figure as an `svg` element with a description for screen readers."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.set_layout_engine("tight")
    drawn = io.StringIO()
    # Text stays text, and ids are reproducible.
    with rc_context({"svg.hashsalt": description, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids without a reference would be duplicates in a page of several plots.
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if f"#{found[1]}" in svg else "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)
