"""Mapped tasks on the workers of a Dask cluster (`engine.runner=dask`), by prefect-dask."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from prefect.events.worker import EventsWorker
from prefect.states import Crashed
from prefect.tasks import Task
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from flows.runners.homes import Homes
from flows.runners.runner import Place
from flows.runners.worker import Mark, environment, has, look, marked, refuse_unlike, sent, work
from tasks.errors import StudyError
from tasks.settings import EngineSettings

CONNECTED_WITHIN_S = 30
DRAINED_WITHIN_S = 3
LOOKED_EVERY_S, ALONE_FOR_S = 5, 60
"""How often it is looked whether there is a worker, while a task is waited for, and how long there may be none."""
GPUS = Path("/proc/driver/nvidia/gpus")
"""Where Linux lists the GPUs of a machine."""


@contextlib.contextmanager
def cluster(engine: EngineSettings) -> Iterator[Place]:
    """Use the cluster at `engine.cluster`, or start one on this machine that ends with the context.

    Raises StudyError if no scheduler answers, it has no worker, or one has other code or other artifacts.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters of it is told by the flow
    with contextlib.ExitStack() as stack:
        place = engine.cluster or stack.enter_context(_on_this_machine(engine.workers))
        client = stack.enter_context(_connected(place))
        if not client.nthreads():
            raise StudyError(
                "Expected a Dask cluster with workers, found none: start some with `dask worker ADDRESS --nthreads 1`."
            )
        mark = stack.enter_context(marked())
        refuse_unlike(client.run(look, mark), mark)
        homes = Homes(client.nthreads, lambda path: [at for at, there in client.run(has, path).items() if there])
        yield Place(lambda at_once: Workers(client, homes, mark), workers=len(client.nthreads()))


def _on_this_machine(workers: int) -> LocalCluster:
    """Processes of one thread each, which share this machine's cores and GPUs."""
    given = environment(workers) | {"DASK_LOGGING__DISTRIBUTED": "critical"}
    with dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in given.items()}):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,  # the machine's own limit holds
        )


@contextlib.contextmanager
def _connected(place: str | LocalCluster) -> Iterator[Client]:
    try:
        client = Client(place, timeout=CONNECTED_WITHIN_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # the last one of TLS without certificates
        raise StudyError(
            f"Expected a Dask scheduler at {place} (engine.cluster), found none that answers ({error}): start it with "
            "`dask scheduler`, or leave engine.cluster out."
        ) from None
    with client:
        client.register_plugin(Ready())
        yield client


class Ready(WorkerPlugin):
    """Makes a worker ready: one GPU of its machine for each in turn, unless it was started with one."""

    name = "fed-rag"

    def setup(self, worker: Worker) -> None:
        """Before anything in the worker has asked for CUDA."""
        count = len(list(GPUS.iterdir())) if GPUS.is_dir() else 0
        if count and "CUDA_VISIBLE_DEVICES" not in os.environ and isinstance(worker.name, int):
            os.environ["CUDA_VISIBLE_DEVICES"] = str(worker.name % count)

    async def teardown(self, worker: Worker) -> None:
        """Before the worker ends, report to Prefect's server what it has not heard yet."""
        await asyncio.to_thread(EventsWorker.drain_all, timeout=DRAINED_WITHIN_S)


class Workers(DaskTaskRunner):
    """Runs each task of a hospital on the hospital's worker, or on another if that one leaves.

    All parts of a flow use one client, so that workers keep what they have loaded.
    """

    def __init__(self, client: Client, homes: Homes, mark: Mark) -> None:
        super().__init__()
        self._workers, self._homes, self._mark = client, homes, mark

    def duplicate(self) -> "Workers":
        """Another runner on the same workers."""
        return type(self)(self._workers, self._homes, self._mark)

    def submit(  # type: ignore[override]  # tasks here return references, and never wait for others' futures
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, Any] | None = None,
    ) -> "Answer":
        """Send a task to its worker, with what Prefect needs to report it to the server."""
        home, task_run_id = self._homes.of(parameters), uuid4()
        future = self._workers.submit(
            work,
            **sent(task, parameters, dependencies, task_run_id, self._mark),
            workers=[home] if home else None,
            allow_other_workers=bool(home),
            pure=False,
        )
        return Answer(wrapped_future=future, task_run_id=task_run_id)


class Answer(PrefectDaskFuture[Any]):
    """The state of a task on a worker; of one whose workers were lost, that it has crashed."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the task's end."""
        end = None if timeout is None else time.monotonic() + timeout
        seen = time.monotonic()  # a worker, last
        while not self._final_state:
            left = LOOKED_EVERY_S if end is None else min(LOOKED_EVERY_S, end - time.monotonic())
            try:
                self._final_state = self._wrapped_future.result(timeout=max(left, 0))
            except TimeoutError:
                if end is not None and time.monotonic() >= end:
                    return
                seen = time.monotonic() if self._has_workers() else seen
                if time.monotonic() - seen > ALONE_FOR_S:
                    self._lose(StudyError(f"Its cluster has had no worker for {ALONE_FOR_S} s: start some."))
            except StudyError as error:  # of a worker with other code or other artifacts
                self._lose(error)
            except Exception as error:  # whatever Dask raises for a task that it gave up
                self._lose(StudyError(f"Its worker was lost: {type(error).__name__} ({error})"))

    def _has_workers(self) -> bool:
        try:
            return bool(self._wrapped_future.client.nthreads())
        except OSError:  # the scheduler is gone too
            return False

    def _lose(self, error: StudyError) -> None:
        self._final_state = Crashed(message=str(error), data=error)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """The task's result, or its error where failures are not raised."""
        self.wait(timeout)
        if not self._final_state:
            raise TimeoutError(f"Task run {self.task_run_id} did not complete within {timeout} seconds")
        return self._final_state.result(raise_on_failure=raise_on_failure)
