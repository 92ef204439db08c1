"""Plots of losses over rounds and epochs."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.records import EpochLoss
from tasks.report.page.figures import HELD_OUT, TRAINED, svg


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
