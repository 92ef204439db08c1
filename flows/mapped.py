"""One stage at many hospitals: a task run for each hospital, or where these are many, for each batch of them.

A task run costs some 50 ms of Prefect and a row of the dashboard, which many hospitals drown in. In a batch hospitals
are worked through one by one: each one's folder is found or made, named and recorded as by a task run of its own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from prefect import Task, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, PrefectFutureList, wait
from prefect.logging import get_run_logger

from flows.runners.runner import on_cluster
from tasks.errors import StudyError
from tasks.store import Ref
from tasks.store.stage import found_or_made
from tasks.text.wording import counted

SINGLE = 64
"""Most hospitals with a task run each."""
BATCHES = 16
"""Task runs of a stage where there are more."""

Answers = tuple[dict[str, Ref], dict[str, Exception]]
"""By hospital, the results, and the errors of those that failed."""


class PartlyDoneError(StudyError):
    """Some hospitals of a batch failed; the others' work is kept, and goes along."""

    def __init__(self, answered: Mapping[str, Ref], missing: Mapping[str, Exception]) -> None:
        super().__init__(failures(missing, len(answered) + len(missing)))
        self.answered = answered
        self.missing = missing


def all_alike(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Mark parameters as the same for each hospital."""
    return {name: unmapped(value) for name, value in parameters.items()}


def gather(stage: Task[..., Ref], hospitals: Sequence[str], /, **parameters: Any) -> list[Ref]:
    """Run a stage once for each hospital, and return the results in their order.

    `parameters` are lists in the order of the hospitals, or marked with `unmapped` as the same for each.
    Raises StudyError if some failed, with their number and the first one's hospital; the others' results are kept.
    """
    return list(gather_named(stage, hospitals, **parameters).values())


def gather_named(stage: Task[..., Ref], hospitals: Sequence[str], /, **parameters: Any) -> dict[str, Ref]:
    """As `gather`, by hospital."""
    answered, missing = answers(stage, hospitals, **parameters)
    if missing:
        refuse_missing(missing, len(hospitals))
    return answered


def answers(stage: Task[..., Ref], hospitals: Sequence[str], /, **parameters: Any) -> Answers:
    """Run a stage once for each hospital, and return both what was made and why some failed.

    On a cluster each has a task run of its own, whatever their number: it goes to the hospital's worker.
    """
    if len(hospitals) <= SINGLE or on_cluster():
        return heard(stage.map(**parameters), hospitals)
    each = [
        {name: value.unwrap() if isinstance(value, unmapped) else value[place] for name, value in parameters.items()}
        for place in range(len(hospitals))
    ]
    size = math.ceil(len(hospitals) / BATCHES)
    batches = [slice(first, first + size) for first in range(0, len(hospitals), size)]
    futures = [_batch(stage, hospitals[batch], each[batch]).submit() for batch in batches]
    wait(futures)
    answered, missing = dict[str, Ref](), dict[str, Exception]()
    for future in futures:
        done, failed = _outcome(future)
        answered |= done
        missing |= failed
    return answered, missing


def _batch(stage: Task[..., Ref], hospitals: Sequence[str], each: Sequence[dict[str, Any]]) -> Task[[], dict[str, Ref]]:
    """A task that works hospitals through; it fails, once it is through, if one of them did."""

    def work() -> dict[str, Ref]:
        answered, missing = dict[str, Ref](), dict[str, Exception]()
        for hospital, parameters in zip(hospitals, each, strict=True):
            try:
                answered[hospital] = found_or_made(stage, parameters)
            except Exception as error:  # as Prefect does of a task run of its own; it is told, and fails the batch
                get_run_logger().error("%s failed: %s", hospital, error, exc_info=True)
                missing[hospital] = error
        if missing:
            raise PartlyDoneError(answered, missing)
        return answered

    first, more = str(stage.task_run_name).format(**each[0]), len(hospitals) - 1
    title = f"{first} and at {counted(more, 'other hospitals')}" if more else first
    return task(name=stage.name, task_run_name=lambda: title, cache_policy=NO_CACHE)(work)


def _outcome(future: PrefectFuture[dict[str, Ref]]) -> Answers:
    """What a batch has made, and why some of its hospitals failed. Raises the error that ended it before, if any."""
    if future.state.is_completed():
        return future.result(), {}
    error: Any = future.result(raise_on_failure=False)
    if not isinstance(error, PartlyDoneError):
        raise error
    return dict(error.answered), dict(error.missing)


def heard(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> Answers:
    """Wait for one task per hospital, and return both what was made and why some failed."""
    wait(list(futures))
    answered, missing = dict[str, Ref](), dict[str, Exception]()
    for hospital, future in zip(hospitals, futures, strict=True):
        if future.state.is_completed():
            answered[hospital] = future.result()
        else:
            error: Any = future.result(raise_on_failure=False)
            missing[hospital] = error
    return answered, missing


def refuse_missing(missing: Mapping[str, Exception], asked: int) -> NoReturn:
    """Raise StudyError for hospitals without which a study does not go on: how many, and the first with its reason."""
    raise StudyError(f"{failures(missing, asked)} (the others' work is kept: retry the run once this is mended)")


def failures(missing: Mapping[str, Exception], asked: int) -> str:
    """How many hospitals failed of those asked, and the first with its reason."""
    hospital, error = next(iter(missing.items()))
    reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
    return f"{len(missing)} of {counted(asked, 'hospitals')} failed, first {hospital}: {reason}"
