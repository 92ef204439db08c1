"""Losses over epochs or rounds: a table, a plot beside it, and the plot in the dashboard."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact

from tasks.page.plots import losses_png
from tasks.records import EpochLoss, write_table
from tasks.store import Folder

TABLE, PLOT = "losses.parquet", "losses.png"


def round_losses(rounds: Sequence[Mapping[str, Any]]) -> list[EpochLoss]:
    """The rounds' rows as losses; the last round's adapter is the one that was kept."""
    return [
        EpochLoss("federation", row["round"], row["train_loss"], row["eval_loss"], kept=row is rounds[-1])
        for row in rounds
    ]


def write_losses(folder: Folder, rows: Sequence[EpochLoss]) -> None:
    """Write `losses.parquet` and `losses.png`."""
    with folder.open(TABLE) as sink:
        write_table(sink, EpochLoss, rows)
    folder.write(PLOT, losses_png(rows))


def show_losses(key: str, rows: Sequence[EpochLoss]) -> None:
    """The plot and the rows in the dashboard, as the artifact of this key (small letters, digits, hyphens)."""
    picture = base64.b64encode(losses_png(rows)).decode()
    lines = [
        f"| {row.stage.replace('|', '/')} | {row.epoch} | {row.train_loss:.4f} "
        f"| {'' if row.held_out_loss is None else f'{row.held_out_loss:.4f}'} | {'yes' if row.kept else ''} |"
        for row in rows
    ]
    table = "\n".join(["| stage | epoch | training | held out | kept |", "|---|---|---|---|---|", *lines])
    create_markdown_artifact(
        markdown=f"![Losses over epochs](data:image/png;base64,{picture})\n\n{table}\n",
        key=key,
        description="Training and held-out loss per answer token",
    )
