"""Mapped tasks on the workers of a Ray cluster (`engine.runner=ray`), by prefect-ray.

Each worker is an actor, so that it keeps the base in memory from task to task.
"""

import contextlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported: it reports nothing to anybody

import ray
from prefect.events.worker import EventsWorker
from prefect.tasks import Task
from prefect_ray.task_runners import PrefectRayFuture, RayTaskRunner

from flows.runners import worker
from flows.runners.homes import Homes
from flows.runners.runner import Place
from tasks.errors import StudyError
from tasks.settings import EngineSettings

DRAINED_WITHIN_S = 3
ANSWERED_WITHIN_S = 120
"""How long a worker may take to start, which loads the libraries, or to look at its disk."""
RETRIES = 3
"""How often a worker that died is started again, and its task: one that kills each worker must come to an end."""
STORED_BYTES = 80 * 2**20
"""Ray's store of objects, the smallest that it takes: references travel, and files are on disk."""


TOKEN = Path.home() / ".ray" / "auth_token"
"""What protects a cluster's ports, where Ray has made one (`ray get-auth-token --generate`)."""


@contextlib.contextmanager
def cluster(engine: EngineSettings) -> Iterator[Place]:
    """Use the cluster at `engine.cluster`, or start one on this machine that ends with the context.

    Raises StudyError if none answers, or its workers have other code or other artifacts.
    """
    with _connected(engine):
        gpus = ray.cluster_resources().get("GPU", 0) >= engine.workers
        remote = ray.remote(num_cpus=1, num_gpus=int(gpus), max_restarts=RETRIES, max_task_retries=RETRIES)
        actor: Any = remote(Actor)
        actors = {f"worker {number}": actor.remote() for number in range(engine.workers)}
        with worker.marked() as mark:
            worker.refuse_unlike(asked(actors, "look", mark), mark)
            homes = Homes(actors.keys, lambda path: [at for at, there in asked(actors, "has", path).items() if there])
            try:
                yield Place(lambda at_once: Workers(actors, homes, mark), workers=engine.workers)
            finally:
                with contextlib.suppress(StudyError):  # a worker that is lost, or still at work, reports no more
                    asked(actors, "drain", within=DRAINED_WITHIN_S)


@contextlib.contextmanager
def _connected(engine: EngineSettings) -> Iterator[None]:
    """Ray, started here unless there is a cluster, without its dashboard."""
    variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    if engine.cluster is None:
        variables |= worker.environment(engine.workers)
        how: dict[str, Any] = {
            "address": "local",  # not one that happens to run here
            "num_cpus": engine.workers,
            "include_dashboard": False,
            "object_store_memory": STORED_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        how = {"address": engine.cluster}
        if TOKEN.exists():  # Ray's client sends it only if it is told to
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        ray.init(**how, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": variables})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise StudyError(
            f"Expected a Ray cluster at {engine.cluster or 'this machine'} (engine.cluster), found none that answers "
            f"({error}): start it with `ray start --head`, or leave engine.cluster out."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


class Actor:
    """A worker: a process that keeps what it has loaded."""

    def work(self, **sent: Any) -> Any:
        """Run a task."""
        return worker.work(**sent)

    def has(self, path: str) -> bool:
        """Whether its machine has a folder of the artifacts."""
        return worker.has(path)

    def look(self, mark: worker.Mark) -> worker.Sight:
        """What it has."""
        return worker.look(mark)

    def drain(self) -> None:
        """Report to Prefect's server what it has not heard yet."""
        EventsWorker.drain_all(timeout=DRAINED_WITHIN_S)


def asked(actors: Mapping[str, Any], what: str, *given: Any, within: float = ANSWERED_WITHIN_S) -> dict[str, Any]:
    """What each actor answers. Raises StudyError if one does not, in so many seconds."""
    asking = [getattr(actor, what).remote(*given) for actor in actors.values()]
    try:
        answers: Collection[Any] = ray.get(asking, timeout=within)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
        raise StudyError(
            f"Expected {len(actors)} workers of Ray (engine.workers) that answer within {within:.0f} s, found fewer "
            f"({type(error).__name__}): set engine.workers to the cores that the cluster has free."
        ) from None
    return dict(zip(actors, answers, strict=True))


class Workers(RayTaskRunner[Any]):
    """Runs each task of a hospital on the hospital's worker, which Ray starts again if it dies."""

    def __init__(self, actors: Mapping[str, Any], homes: Homes, mark: worker.Mark) -> None:
        super().__init__()
        self._actors, self._homes, self._mark = actors, homes, mark
        self._others = 0

    def duplicate(self) -> "Workers":
        """Another runner on the same workers."""
        return type(self)(self._actors, self._homes, self._mark)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, Any] | None = None,
    ) -> PrefectRayFuture[Any]:
        """Send a task to its worker, or to each in turn if it is of no hospital."""
        home, task_run_id = self._homes.of(parameters), uuid4()
        if home is None:
            home = list(self._actors)[self._others % len(self._actors)]
            self._others += 1
        state = self._actors[home].work.remote(**worker.sent(task, parameters, dependencies, task_run_id, self._mark))
        return PrefectRayFuture(wrapped_future=state, task_run_id=task_run_id)
