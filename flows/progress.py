"""How far a flow has come: a progress bar in the dashboard, a line in the log."""

import logging
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

logger = logging.getLogger("fed_rag")


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
