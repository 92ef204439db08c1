"""Marks runs whose process died without notice (`kill -9`, power cut) as crashed, when the next run begins.

A server knows of a run only what its process reports. Without this, tasks that ran when the process died would be shown
as running forever.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from filelock import FileLock, Timeout
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.exceptions import PrefectException
from prefect.states import Crashed

from tasks.store import ROOT

MESSAGE = "Its process is gone. A retry, or the same command, goes on from what is finished."
RUNNING = {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
_locks: dict[UUID, FileLock] = {}
"""Locks that this process holds for its flow runs. The system releases them when the process ends, however it ends."""


def mark_what_is_gone(_: object, run: FlowRun, __: object) -> None:
    """Mark unfinished tasks of earlier attempts of this run, and runs in this folder whose process has died."""
    with contextlib.suppress(PrefectException, httpx.HTTPError), get_client(sync_client=True) as client:
        crash_tasks(client, run.id, MESSAGE)  # this attempt has no tasks yet
        if run.parent_task_run_id is None:
            for gone in _hold(_place(), run.id):
                _crash(client, gone)


def let_go(_: object, run: FlowRun, __: object) -> None:
    """Remove the lock of a run that has ended."""
    if lock := _locks.pop(run.id, None):
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


HOOKS: dict[str, Any] = {"on_running": [mark_what_is_gone], "on_completion": [let_go], "on_failure": [let_go]}
"""The hooks of every flow."""


def crash_tasks(client: SyncPrefectClient, run: UUID, message: str) -> None:
    """Mark the running tasks of a flow run, and its running subflows, as crashed."""
    of_run = FlowRunFilter.model_validate({"id": {"any_": [run]}})
    for task in client.read_task_runs(flow_run_filter=of_run, task_run_filter=TaskRunFilter.model_validate(RUNNING)):
        parts = FlowRunFilter.model_validate(RUNNING | {"parent_task_run_id": {"any_": [task.id]}})
        for part in client.read_flow_runs(flow_run_filter=parts):
            crash_tasks(client, part.id, message)
            client.set_flow_run_state(part.id, Crashed(message=message), force=True)
        client.set_task_run_state(task.id, Crashed(message=message), force=True)


def _crash(client: SyncPrefectClient, run: UUID) -> None:
    """Mark a run and its tasks as crashed, if the server shows it as running."""
    known = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(RUNNING | {"id": {"any_": [run]}}))
    for each in known:
        crash_tasks(client, each.id, MESSAGE)
        client.set_flow_run_state(each.id, Crashed(message=MESSAGE), force=True)


def _place() -> Path:
    """The folder with one file, named by its id, for each run that is active here."""
    place = (ROOT / ".running").absolute()
    place.mkdir(parents=True, exist_ok=True)
    return place


def _hold(place: Path, run: UUID) -> list[UUID]:
    """Lock the file of a run, and return the runs whose files are no longer locked."""
    with FileLock(place / "lock"):  # else another process could find the file before it is locked
        gone = list(_free(place, run))
        lock = FileLock(place / str(run), thread_local=False)
        with contextlib.suppress(Timeout):  # the run was given up, but its process is still alive
            lock.acquire(blocking=False)
            _locks[run] = lock
    return gone


def _free(place: Path, run: UUID) -> Iterator[UUID]:
    for path in place.iterdir():
        if path.name in ("lock", str(run)):
            continue
        with contextlib.suppress(Timeout), FileLock(path, blocking=False):
            path.unlink(missing_ok=True)
            yield UUID(path.name)
