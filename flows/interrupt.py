"""Handles Ctrl-C in commands that run a flow: the flow ends within seconds, and is recorded as crashed."""

import contextlib
import contextvars
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from tasks.store import remove_unfinished

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas import FlowRun

MESSAGE = "Interrupted; the same command goes on from here."
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STDERR = 2
RECORDED_WITHIN_S = 12.0
"""How long the server may take, on a busy machine, to hear of it; a second signal does not wait."""
LOOKS, LOOKS_EVERY_S = 4, 0.1
"""How often, and how many seconds apart, to look for stages that were just about to begin."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """In this context, Ctrl-C, a closed terminal or `kill` ends the running flow, whatever it is doing.

    Prefect would first wait for the running task. Here the flow run and its task runs are marked as crashed, unfinished
    folders are removed, and the process exits with 128 plus the signal's number, as shells expect: 130 for Ctrl-C.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] != signal.SIG_IGN]  # `nohup` ignores SIGHUP
    for number in heard:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _interrupt(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)  # a second signal ends the process at once
    logging.disable()  # no messages about the work that is broken off
    try:
        # In another thread: this one may hold a lock, or wait for a reply that never comes.
        record = threading.Thread(target=contextvars.copy_context().run, args=(_mark_as_crashed,), daemon=True)
        record.start()
        record.join(RECORDED_WITHIN_S)
        remove_unfinished()
        # The signal may have come amid a write; Python refuses another one on the same stream.
        with contextlib.suppress(RuntimeError):
            sys.stdout.flush()
        os.write(STDERR, f"\n{MESSAGE}\n".encode())
    finally:
        os._exit(128 + number)  # nothing else ends the thread that runs a task


def _mark_as_crashed() -> None:
    """Mark the running flow and its parent flows, and their running tasks, as crashed."""
    if "prefect.context" not in sys.modules:
        return  # nothing runs yet
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.states import Crashed

    from flows.gone import crash_tasks
    from tasks.store.stage import halt

    halt()
    context = FlowRunContext.get()
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # a record is not worth a traceback
        for run in _with_parents(client, context.flow_run if context else None):
            client.set_flow_run_state(run.id, Crashed(message=MESSAGE), force=True)
            crash_tasks(client, run.id, MESSAGE)
        _await_records(client, _report_crashed_stages())


def _report_crashed_stages() -> list["UUID"]:
    """Report running stages as crashed by events: a server that does not know of a task yet could not find it.

    Returns the ids of their task runs.
    """
    from prefect.context import TaskRunContext
    from prefect.events.worker import EventsWorker
    from prefect.states import Crashed, State
    from prefect.utilities.engine import emit_task_run_state_change_event

    from tasks.store.stage import running_stages

    # The signal may have come between Prefect's word that a task runs and the beginning of its stage.
    own = TaskRunContext.get()
    reported: list[UUID] = []
    for _ in range(LOOKS):
        for task_run in [*running_stages(), *([own.task_run] if own else [])]:
            if task_run.id not in reported:
                state: State[None] = Crashed(message=MESSAGE)
                state.state_details.task_run_id = task_run.id
                state.state_details.flow_run_id = task_run.flow_run_id
                emit_task_run_state_change_event(task_run, initial_state=task_run.state, validated_state=state)
                reported.append(task_run.id)
        EventsWorker.drain_all(timeout=RECORDED_WITHIN_S / LOOKS)
        time.sleep(LOOKS_EVERY_S)
    return reported


def _await_records(client: "SyncPrefectClient", reported: list["UUID"]) -> None:
    """Wait until the server has written down that these have crashed: a temporary one ends with this process.

    Returns when it has; this thread is given up when it takes too long.
    """
    from prefect.client.schemas.filters import TaskRunFilter

    wanted = TaskRunFilter.model_validate({"id": {"any_": reported}, "state": {"type": {"any_": ["CRASHED"]}}})
    while len(client.read_task_runs(task_run_filter=wanted)) < len(reported):
        time.sleep(LOOKS_EVERY_S)


def _with_parents(client: "SyncPrefectClient", run: "FlowRun | None") -> Iterator["FlowRun"]:
    while run:
        yield run
        task_run = client.read_task_run(run.parent_task_run_id) if run.parent_task_run_id else None
        run = client.read_flow_run(task_run.flow_run_id) if task_run and task_run.flow_run_id else None
