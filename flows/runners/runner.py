"""Where the mapped tasks of a flow run: in this process, or on the workers of a cluster."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import StudyError
from tasks.settings import EngineSettings

Given = TypeVar("Given")
Made = TypeVar("Made")
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


def spread(work: Callable[[Given], Made], each: Sequence[Given]) -> Iterator[Made]:
    """What studies give, in their order, each as soon as those before it are there; `studies_at_once` run at a time."""
    if studies_at_once() == 1:
        yield from map(work, each)
        return
    with ThreadPoolExecutor(max_workers=studies_at_once()) as pool:
        contexts = [copy_context() for _ in each]
        yield from pool.map(lambda context, one: context.run(work, one), contexts, each)


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
