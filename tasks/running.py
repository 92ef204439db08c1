"""Which stages this process is at work on, for whoever has to end it."""

import contextlib
import threading
from collections.abc import Iterator

from prefect.client.schemas import TaskRun

_running: list[TaskRun] = []
_halted = threading.Event()


@contextlib.contextmanager
def told_as_running(task_run: TaskRun | None) -> Iterator[None]:
    """Around a stage's work; None where it runs as a plain function, without a flow."""
    if task_run is None:
        yield
        return
    _running.append(task_run)
    try:
        yield
    finally:
        wait_if_halted()
        _running.remove(task_run)


def wait_if_halted(beginning: TaskRun | None = None) -> None:
    """Go no further once the process is about to end; a stage that was to begin is told among those at work."""
    if _halted.is_set():
        if beginning:
            _running.append(beginning)
        threading.Event().wait()


def halt() -> None:
    """Let no other thread begin or end a stage: the process ends soon, and its record is being written."""
    _halted.set()


def running_stages() -> list[TaskRun]:
    """The task runs at work: what a server knows of them is seconds behind."""
    return list(_running)
