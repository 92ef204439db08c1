"""What runs on a cluster's workers, and what they must have before they are given work.

A task travels by its name: the worker imports the same code. Each worker is a process that loads the base once and
keeps it.
"""

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect.context import serialize_context
from prefect.task_engine import run_task_sync
from prefect.tasks import Task

from flows.shared_artifacts import share
from tasks.errors import StudyError
from tasks.store import ROOT
from tasks.store.again import Again, asked_again, asking
from tasks.store.checkpoints import checkpoint_minutes, checkpoints_every
from tasks.store.code import code_digest
from tasks.store.shared_store import shared_store


@dataclass(frozen=True)
class Mark:
    """What a study's workers must have."""

    code: str
    """The digest of its code."""
    file: str
    """The name of a file that is in its artifacts meanwhile."""
    store: str | None
    """The store that its artifacts share."""


Name = tuple[str, str]
"""A module of `tasks`, and what is called so in it."""


def environment(workers: int) -> dict[str, str]:
    """What workers on this machine are started with: they share its cores, and show no bars, which would mix.

    Torch takes the least of what OpenMP and MKL are told.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads) | {
        "TQDM_DISABLE": "1"
    }


def sent(
    task: Task[..., Any], parameters: Mapping[str, Any], dependencies: Any, task_run_id: UUID, mark: Mark
) -> dict[str, Any]:
    """What `work` is given for a task: with what Prefect needs to report it, and what holds where it was called."""
    return {
        "mark": mark,
        "name": name_of(task),
        "task_run_id": task_run_id,
        "parameters": parameters,
        "dependencies": dependencies,
        "context": serialize_context(),
        "minutes": checkpoint_minutes(),
        "again": _again(task, parameters),
    }


def _again(task: Task[..., Any], parameters: Mapping[str, Any]) -> Again | None:
    """The request to do finished work again, of this task alone; None if it does not cover the task.

    What follows from what is known where the flow runs, and not on a worker.
    """
    asked = asked_again()
    if asked is None:
        return None
    given = inspect.signature(task.fn).bind(**parameters)
    given.apply_defaults()
    covered: Any = task.fn
    return Again(task.name, asked.run) if covered.covered(given.arguments) else None


def name_of(task: Task[..., Any]) -> Name:
    """How a worker finds a task."""
    return task.fn.__module__.removeprefix("tasks."), task.fn.__qualname__


def work(
    name: Name,
    task_run_id: UUID,
    parameters: Mapping[str, Any],
    dependencies: Any,
    context: dict[str, Any],
    minutes: float | None,
    again: Again | None,
    mark: Mark,
) -> Any:
    """Run the task of this name, and return its final state.

    Raises StudyError if this worker, which may have joined later, has other code or other artifacts.
    """
    _refuse_strange(mark)
    with checkpoints_every(minutes), asking(again):
        return run_task_sync(
            getattr(import_module(f"tasks.{name[0]}"), name[1]),
            task_run_id=task_run_id,
            parameters=dict(parameters),
            dependencies=dependencies,
            return_type="state",
            context=context,
        )


def has(path: str) -> bool:
    """Whether this worker's machine has a folder of the artifacts."""
    return (ROOT / path).exists()


Sight = tuple[str, bool]
"""The digest of a worker's code, and whether it works on the same artifacts."""


def look(mark: Mark) -> Sight:
    """What this worker has: it sees a file in the artifacts, or shares their store from now on."""
    if mark.store:
        share(mark.store)
    return code_digest(["flows.fed_rag"]), bool(mark.store) or (ROOT / mark.file).exists()


@contextmanager
def marked() -> Iterator[Mark]:
    """By what workers know these artifacts and this code, while the context lasts."""
    ROOT.mkdir(exist_ok=True)
    file: Path = ROOT / f".workers-{uuid4().hex}"
    file.touch()
    try:
        store = shared_store(ROOT)
        yield Mark(code_digest(["flows.fed_rag"]), file.name, store.url if store else None)
    finally:
        file.unlink(missing_ok=True)


def refuse_unlike(sights: Mapping[str, Sight], mark: Mark) -> None:
    """Raise StudyError unless all workers have the code of this process and work on its artifacts."""
    for worker, (digest, sees) in sights.items():
        if digest != mark.code:
            raise StudyError(
                f"Expected workers with the code of this process, found {worker} with other code: install the same "
                "version of fed-rag there, and start it again."
            )
        if not sees:
            raise StudyError(
                f"Expected workers that see the artifacts of the study, found {worker} in "
                "another folder: start workers in the folder of the study, on a disk that all machines share, or set "
                "artifacts.root."
            )


@cache
def _refuse_strange(mark: Mark) -> None:
    """As `refuse_unlike`, on the worker itself, once for each study or comparison."""
    refuse_unlike({f"this worker, process {os.getpid()}": look(mark)}, mark)
