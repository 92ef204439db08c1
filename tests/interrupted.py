"""Trainings that are broken off at a step, as by a kill, and checkpoints for them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tasks.store import Folder
from tasks.store.checkpoints import Checkpoint, checkpoints_every


class InterruptedHereError(Exception):
    """Raised in place of a kill."""


@contextlib.contextmanager
def breaking_off(number: int) -> Iterator[list[int]]:
    """Break any training off in its step of this number, counted from 1; it yields the steps that were begun."""
    begun: list[int] = []

    def count(*_: Any) -> None:
        begun.append(len(begun) + 1)
        if begun[-1] == number:
            raise InterruptedHereError

    handle = register_optimizer_step_pre_hook(count)
    try:
        with contextlib.suppress(InterruptedHereError):
            yield begun
    finally:
        handle.remove()


def steps_of(training: Callable[[], object]) -> int:
    """How many steps a training takes to its end, beginning in whatever state torch's randomness is."""
    torch.manual_seed(1234)
    with breaking_off(0) as begun:
        training()
    return len(begun)


def checkpoint(
    key: str = "key",
    minutes: float | None = 0,
    now: Callable[[], float] = time.monotonic,
    area: str = "hospitals/north",
) -> Checkpoint:
    """A checkpoint of the work of this key; by default saved after each step."""
    with checkpoints_every(minutes):
        return Checkpoint(Folder(Path("unused"), key), area, now)
