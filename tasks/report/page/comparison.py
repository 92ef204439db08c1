"""The page of a comparison: its tables, the configurations with their intervals, and the sweeps as curves."""

from collections.abc import Sequence
from typing import Literal

import yaml
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.records.comparison import ComparisonDocument, Sweep
from tasks.records.text_table import Table
from tasks.report.page.figures import REFERENCE, TRAINED, svg
from tasks.report.page.plots import METRICS
from tasks.report.page.render import fill

MEASURES = {"closed_accuracy": METRICS[0][2], "open_exact_match": METRICS[1][2]}
COLOURS = ("#0b6e8f", "#d1495b")
LOSSES: dict[Literal["train_loss", "eval_loss"], str] = {
    "train_loss": "training loss",
    "eval_loss": "held-out loss",
}


def comparison_page(document: ComparisonDocument, tables: Sequence[Table]) -> str:
    """The page of a comparison, one HTML file.

    Args:
        document: `comparison.json`.
        tables: its tables as text.
    """
    plots = [interval_plot(document, split["name"]) for split in document["splits"] if split["same_as"] is None]
    for sweep in document["sweeps"]:
        plots += [curve_plot(sweep), loss_curves(sweep)]
    settings = yaml.safe_dump(document["settings"], sort_keys=False)
    return fill(
        "comparison.html",
        document=document,
        tables=tables,
        plots=[Markup(plot) for plot in plots],  # SVG from our code, its texts escaped
        settings=settings,
    )


def interval_plot(document: ComparisonDocument, split: str) -> str:
    """Closed accuracy and open exact match of each configuration on a split, with 95 % intervals."""
    rows = document["configurations"]
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(rows)))
    descriptions = []
    for axes, (measure, title) in zip(figure.subplots(1, 2, sharey=True), MEASURES.items(), strict=True):
        found = {
            entry["configuration"]: entry
            for entry in document["scores"]
            if (entry["split"], entry["measure"], entry["group"]) == (split, measure, "all")
        }
        for place, row in enumerate(rows):
            if entry := found.get(row["name"]):
                low, high = entry["interval"] or [entry["score"]] * 2
                colour = TRAINED if row["trained"] else REFERENCE
                axes.plot([low, high], [place, place], "-", color=colour, linewidth=2)
                axes.plot([entry["score"]], [place], "o", color=colour)
                descriptions.append(f"{row['label']} {title} {entry['score']:.3f}")
        axes.set_title(title.replace(", ", ",\n"), fontsize=9)
        axes.set_yticks(range(len(rows)), [row["label"] for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
    figure.suptitle(f"partition.disjoint: {split}", fontsize=9)
    return svg(figure, f"Scores with 95 % intervals, split {split}: {'; '.join(descriptions)}")


def curve_plot(sweep: Sweep) -> str:
    """Closed accuracy and open exact match over the points of a sweep, with 95 % intervals."""
    figure = Figure(figsize=(8, 2.8))
    axes = figure.subplots()
    labels = [point["label"] for point in sweep["points"]]
    descriptions = []
    for (measure, title), colour, mark in zip(MEASURES.items(), COLOURS, ("o-", "s--"), strict=True):
        found = [
            (place, entry)
            for place, point in enumerate(sweep["points"])
            for entry in point["scores"]
            if entry["measure"] == measure
        ]
        if found:
            places = [place for place, _ in found]
            axes.plot(places, [entry["score"] for _, entry in found], mark, color=colour, label=title)
            ends = [entry["interval"] or [entry["score"]] * 2 for _, entry in found]
            low, high = zip(*ends, strict=True)
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
            descriptions.append(
                f"{title}: " + ", ".join(f"{labels[place]} {entry['score']:.3f}" for place, entry in found)
            )
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(sweep["name"])
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8)
    return svg(figure, f"Sweep of {sweep['name']}. {'; '.join(descriptions)}")


def loss_curves(sweep: Sweep) -> str:
    """Loss per answer token over passes through the training cases, one curve for each point of a sweep."""
    figure = Figure(figsize=(8, 2.8))
    for axes, (loss, title) in zip(figure.subplots(1, 2), LOSSES.items(), strict=True):
        for point in sweep["points"]:
            found = [
                (row["round"] * point["local_epochs"], row[loss]) for row in point["rounds"] if row[loss] is not None
            ]
            if found:
                axes.plot(*zip(*found, strict=True), "o-", markersize=3, label=point["label"])
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("passes over the training cases")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.1 * max(row[loss] or 0 for point in sweep["points"] for row in point["rounds"]) or 1)
    figure.axes[0].legend(frameon=False, fontsize=7, title=sweep["name"], title_fontsize=7)
    last = ", ".join(f"{point['label']} {point['rounds'][-1]['train_loss']:.3f}" for point in sweep["points"])
    return svg(figure, f"Losses in the sweep of {sweep['name']}; last training loss: {last}")
