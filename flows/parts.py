"""Runs parts of a flow as subflows, so that the dashboard groups related tasks."""

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import Flow

from flows.heartbeats import end_without_waiting
from flows.runners.runner import task_runner

Made = TypeVar("Made")

end_without_waiting()  # a study has a part for each round


class Part(Flow[[], Any]):
    """A subflow. Where its tasks run on workers, these get its name alone: what it does stays in this process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Part, (_elsewhere, self.name)


def _elsewhere() -> None:
    """What a part does on a worker."""


def within_part(name: str, work: Callable[[], Made], title: str = "", at_once: int = 1) -> Made:
    """Run part of a flow as a subflow.

    The subflow has no parameters, so none of its data is stored on the server. It has no cached result: a retried flow
    runs it again, and its stages come from the cache.

    Args:
        name: name of the subflow, shared by subflows of the same kind.
        work: the function to run.
        title: name of this run; default `name`.
        at_once: most tasks that this process runs at the same time.
    """
    part: Flow[[], Made] = Part(work, name=name, flow_run_name=title or name, task_runner=task_runner(at_once))
    return part()
