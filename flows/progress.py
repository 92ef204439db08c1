"""How far a flow has come: a progress bar in the dashboard, a line in the log."""

import json
import logging
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.store import Ref

logger = logging.getLogger("fed_rag")
SHOWN = 20
"""Columns that are named; exports can have hundreds."""


class Steps:
    """Counts a flow's steps.

    Args:
        key: of the progress artifact, in `[a-z0-9-]`.
        total: number of steps to come.
    """

    def __init__(self, key: str, total: int) -> None:
        self.total = total
        self.count = 0
        self.started = time.perf_counter()
        self.artifact: UUID = create_progress_artifact(progress=0.0, key=key)  # type: ignore[assignment]

    def done(self, what: str) -> None:
        """One more step is done; `what` says which, and what came of it."""
        self.count += 1
        update_progress_artifact(self.artifact, progress=round(100.0 * self.count / self.total, 1), description=what)
        logger.info("%2d/%d  %5.0f s  %s", self.count, self.total, time.perf_counter() - self.started, what)


class Pace:
    """How long equal pieces of work will still take, by the mean of those that were done.

    Args:
        pieces: their number.
    """

    def __init__(self, pieces: int) -> None:
        self.left = pieces
        self.took: list[float] = []

    def done(self, seconds: float | None) -> str:
        """One more piece is done, in so many seconds; None where it was found done, which tells nothing of the others.

        Returns words to put behind what is said of it: `, about 5 min left`, or nothing where that is not known.
        """
        self.left -= 1
        if seconds is not None:
            self.took.append(seconds)
        if not (self.left and self.took):
            return ""
        wait = self.left * sum(self.took) / len(self.took)
        return f", about {wait / 60:.0f} min left" if wait > 90 else f", about {wait:.0f} s left"


def tell_unused_columns(dataset: Ref) -> None:
    """One line of the columns of a hospital's own table that are not read; none where all are."""
    if names := json.loads((dataset.folder / "columns_not_used.json").read_text(encoding="utf-8")):
        shown = ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        logger.info("Columns of the table that are not used: %s; rename those that should be (docs/datasets.md)", shown)
