"""Reports a flow's progress: a progress bar in the dashboard, and lines in the log."""

import json
import logging
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.store import Ref

logger = logging.getLogger("fed_rag")
LISTED = 20
"""Most columns named in the log; exports can have hundreds."""


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
        """Report one more step as done; `what` names it and its result."""
        self.count += 1
        update_progress_artifact(self.artifact, progress=round(100.0 * self.count / self.total, 1), description=what)
        logger.info("%2d/%d  %5.0f s  %s", self.count, self.total, time.perf_counter() - self.started, what)


class Pace:
    """Estimates the time left for pieces of work of similar size, from the mean time of the finished ones.

    Args:
        pieces: number of pieces.
    """

    def __init__(self, pieces: int) -> None:
        self.left = pieces
        self.took: list[float] = []

    def done(self, seconds: float | None) -> str:
        """Record one finished piece and its seconds; None if it was reused, so that it does not count in the mean.

        Returns words for the end of a message, such as `, about 5 min left`, or "" if the time left is not known.
        """
        self.left -= 1
        if seconds is not None:
            self.took.append(seconds)
        if not (self.left and self.took):
            return ""
        wait = self.left * sum(self.took) / len(self.took)
        return f", about {wait / 60:.0f} min left" if wait > 90 else f", about {wait:.0f} s left"


def log_unused_columns(dataset: Ref) -> None:
    """Log the columns of a hospital's table that are not read, in one line, if there are any."""
    if names := json.loads((dataset.folder / "columns_not_used.json").read_text(encoding="utf-8")):
        more = len(names) - LISTED
        listed = ", ".join(map(repr, names[:LISTED])) + (f" and {more} more" if more > 0 else "")
        logger.info(
            "Columns of the table that are not used: %s; rename those that should be (docs/datasets.md)", listed
        )
