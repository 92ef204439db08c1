"""Where the mapped tasks of a flow run: in this process, or on the workers of a cluster."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import StudyError
from tasks.settings import EngineSettings

Runner = TaskRunner[Any]
Make = Callable[[int], Runner]
"""Makes the task runner of one part of a flow; it is given the most tasks that this process may run at once."""


def in_this_process(at_once: int) -> Runner:
    """Threads of this process, which share its one engine."""
    runner: Any = ThreadPoolTaskRunner(max_workers=at_once)  # Prefect's own types do not take it
    return runner


@dataclass(frozen=True)
class Place:
    """Where tasks run."""

    make: Make = in_this_process
    workers: int = 0
    """Processes of a cluster; 0 in this process."""


HERE = Place()
_place: ContextVar[Place] = ContextVar("place", default=HERE)


def task_runner(at_once: int) -> Runner:
    """The task runner of a part of a flow, by the engine settings that hold here."""
    return _place.get().make(at_once)


def on_cluster() -> bool:
    """Whether tasks run on workers here."""
    return _place.get().workers > 0


def studies_at_once() -> int:
    """How many studies may run at the same time here: in this process one, on a cluster one for each worker."""
    return max(1, _place.get().workers)


@contextlib.contextmanager
def working_on(engine: EngineSettings) -> Iterator[None]:
    """Let mapped tasks run where `engine.runner` says. Within a context of a cluster, that cluster is used.

    Raises StudyError if the packages of the runner are not installed, or its cluster cannot be used.
    """
    if engine.runner == "thread" or on_cluster():
        yield
        return
    if find_spec(f"prefect_{engine.runner}") is None:
        raise StudyError(
            f"Expected the package prefect-{engine.runner} for engine.runner={engine.runner}, found none: "
            f"`pip install '.[{engine.runner}]'`, or set engine.runner=thread."
        )
    with import_module(f"flows.runners.{engine.runner}").cluster(engine) as place:
        token = _place.set(place)
        try:
            yield
        finally:
            _place.reset(token)
