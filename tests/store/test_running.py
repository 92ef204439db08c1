"""Stages of many threads are listed as running while they are, and not afterwards."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from tasks.store import stage


class Compared:
    """A task run whose comparison with another one lets other threads go on, as that of a large record does."""

    def __init__(self) -> None:
        self.id = uuid.uuid4()

    def __eq__(self, other: object) -> bool:
        time.sleep(0.0002)
        return self is other

    __hash__ = None  # type: ignore[assignment]


def test_threads_that_begin_and_end_at_once_are_listed_and_taken_off() -> None:
    def run(_: int) -> bool:
        context: Any = SimpleNamespace(task_run=Compared())
        with stage._listed_as_running(context):
            time.sleep(0.001)
            return any(each is context.task_run for each in stage.running_stages())

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert all(pool.map(run, range(400)))
    assert stage.running_stages() == []
