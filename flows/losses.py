"""Losses over epochs or rounds: tables, a plot beside them, and the plot in the dashboard."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from flows.dashboard import Dashboard
from tasks.records import EpochLoss, write_table
from tasks.report.page.loss_plots import losses_png
from tasks.report.quarantine import left_out
from tasks.report.rounds import LOST, lost_text
from tasks.store import Folder

TABLE, PLOT = "losses.parquet", "losses.png"


def round_losses(rounds: Sequence[Mapping[str, Any]]) -> list[EpochLoss]:
    """The rounds' rows as loss records; the last round's adapter is marked as kept."""
    return [
        EpochLoss("federation", row["round"], row["train_loss"], row["eval_loss"], kept=row is rounds[-1])
        for row in rounds
    ]


def round_table(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rounds as formatted text: losses, cases, seconds, bytes, the share lost, and hospitals left out."""
    return [
        {
            "round": str(row["round"]),
            "training loss": f"{row['train_loss']:.4f}",
            "held-out loss": "-" if row["eval_loss"] is None else f"{row['eval_loss']:.4f}",
            "training cases": f"{sum(row['samples'].values()):,}",
            "seconds": f"{row['seconds']:.1f}",
            "MB sent, returned": f"{row['bytes_down'] / 1e6:.1f}, {row['bytes_up'] / 1e6:.1f}",
            LOST: lost_text(row["lost_share"]),
            "left out": left_out(row),
        }
        for row in rounds
    ]


def write_losses(folder: Folder, rows: Sequence[EpochLoss]) -> None:
    """Write `losses.parquet` and `losses.png`."""
    with folder.open(TABLE) as sink:
        write_table(sink, EpochLoss, rows)
    folder.write(PLOT, losses_png(rows))


def show_losses(dashboard: Dashboard, key: str, rows: Sequence[EpochLoss]) -> None:
    """Show the plot and the rows in the dashboard, as the artifact with this key."""
    picture = base64.b64encode(losses_png(rows)).decode()
    lines = [
        f"| {row.stage.replace('|', '/')} | {row.epoch} | {row.train_loss:.4f} "
        f"| {'' if row.held_out_loss is None else f'{row.held_out_loss:.4f}'} | {'yes' if row.kept else ''} |"
        for row in rows
    ]
    table = "\n".join(["| stage | epoch | training | held out | kept |", "|---|---|---|---|---|", *lines])
    text = f"![Losses over epochs](data:image/png;base64,{picture})\n\n{table}\n"
    dashboard.markdown(key, text, "Training and held-out loss per answer token")
