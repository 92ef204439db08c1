"""Parts of a flow: subflows, so that the dashboard groups what belongs together."""

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

Made = TypeVar("Made")


def within_part(name: str, work: Callable[[], Made], title: str = "") -> Made:
    """Do some of a flow's work as a subflow.

    It has no parameters, so nothing of what it works with is stored on the server, and no result of its own: a retried
    flow runs it again, and finds its stages in the cache.

    Args:
        name: of the subflow, the same for all that are alike.
        work: what is done in it.
        title: of this run of it; the name where not given.
    """
    runner: Any = ThreadPoolTaskRunner(max_workers=1)  # Prefect's own types do not take it
    part = flow(name=name, flow_run_name=title or name, task_runner=runner)(work)
    return part()
