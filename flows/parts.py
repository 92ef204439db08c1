"""Runs parts of a flow as subflows, so that the dashboard groups related tasks."""

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

Made = TypeVar("Made")


def within_part(name: str, work: Callable[[], Made], title: str = "", at_once: int = 1) -> Made:
    """Run part of a flow as a subflow.

    The subflow has no parameters, so none of its data is stored on the server. It has no cached result: a retried flow
    runs it again, and its stages come from the cache.

    Args:
        name: name of the subflow, shared by subflows of the same kind.
        work: the function to run.
        title: name of this run; default `name`.
        at_once: most tasks that run at the same time.
    """
    runner: Any = ThreadPoolTaskRunner(max_workers=at_once)  # Prefect's own types do not take it
    part = flow(name=name, flow_run_name=title or name, task_runner=runner)(work)
    return part()
