"""What Ctrl-C does to a flow that a command runs: it ends within seconds, and its record says so."""

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
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas import FlowRun

MESSAGE = "Interrupted; the same command goes on from here."
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RECORDED_WITHIN_S = 2.0
LOOKS, LOOKS_EVERY_S = 4, 0.1
"""A stage that was about to begin says so a moment later: how often to look for it."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, a closed terminal or `kill` end the flow that runs within this, whatever it is doing.

    Prefect would first wait for the task that runs. Here its flow run and task runs are marked as crashed, what is
    half-written is removed, and the process ends with 128 and the signal's number, as shells expect: 130 for Ctrl-C.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] != signal.SIG_IGN]  # as `nohup` has it
    for number in heard:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _interrupt(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)  # whoever cannot wait asks again
    logging.disable()  # of what is broken off, nobody need hear more
    # In a thread of its own: what this one was doing may hold a lock, or wait for a reply that does not come.
    record = threading.Thread(target=contextvars.copy_context().run, args=(_mark_as_crashed,), daemon=True)
    record.start()
    record.join(RECORDED_WITHIN_S)
    remove_unfinished()
    sys.stdout.flush()
    print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
    os._exit(128 + number)  # the thread that runs a task knows no other end


def _mark_as_crashed() -> None:
    """Of the flow that runs, and of those that it is part of, the runs and the tasks that were running."""
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
        _tell_of_stages()


def _tell_of_stages() -> None:
    """As events, which is how Prefect tells of tasks: a server that has not yet heard that one runs cannot find it."""
    from prefect.events.worker import EventsWorker
    from prefect.states import Crashed, State
    from prefect.utilities.engine import emit_task_run_state_change_event

    from tasks.store.stage import running_stages

    told = set()
    for _ in range(LOOKS):
        for task_run in running_stages():
            if task_run.id not in told:
                state: State[None] = Crashed(message=MESSAGE)
                state.state_details.task_run_id = task_run.id
                state.state_details.flow_run_id = task_run.flow_run_id
                emit_task_run_state_change_event(task_run, initial_state=task_run.state, validated_state=state)
                told.add(task_run.id)
        EventsWorker.drain_all(timeout=RECORDED_WITHIN_S / LOOKS)
        time.sleep(LOOKS_EVERY_S)


def _with_parents(client: "SyncPrefectClient", run: "FlowRun | None") -> Iterator["FlowRun"]:
    while run:
        yield run
        task_run = client.read_task_run(run.parent_task_run_id) if run.parent_task_run_id else None
        run = client.read_flow_run(task_run.flow_run_id) if task_run and task_run.flow_run_id else None
