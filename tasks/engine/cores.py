"""How many threads compute: as many as there are cores that others leave free.

OpenMP's threads wait for each other, so the slowest decides: two threads on two cores of which another process has
one can be many times slower than one (`python -m benchmarks.threads`, docs/log.md). Passes over a text model in float32
give the same bytes with any number, and so do their gradients. So it may change at any time, in a training too.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import floor
from pathlib import Path

import torch

from tasks.engine.base import Base

STAT = Path("/proc/stat")
IDLE = (3, 4)
"""Places of idle time and of waiting for disks among the numbers of a line; the others, stolen time too, are use."""
QUOTAS = Path("/sys/fs/cgroup")
"""Where a container finds how much processor time it may take."""
MOMENT = 0.2
"""Seconds that the first look takes at least: the system counts in hundredths."""
PERIOD = 1.0
"""Seconds between two later looks."""
SPARED = 0.25
"""Share of a core that others may use, while it still counts as free."""

logger = logging.getLogger("fed_rag")


class Threads:
    """The number of threads of this process, chosen again and again by what others use of the cores.

    A number that the user has set by OMP_NUM_THREADS stays. Work in other processes is the work of others, whoever
    started it.
    """

    def __init__(self) -> None:
        self._cores = usable()
        self._own = torch.get_num_threads()
        self._granted = min(self._own, allowance() or self._own)
        self._watch = Watch(self._cores)
        self._chosen: int | None = None
        self._told = False

    @contextmanager
    def suited(self, base: Base) -> Iterator[None]:
        """While open, choose the number before each pass over the text model: others may begin and end meanwhile.

        The tower computes with torch's own number, on which the last bits of a convolution can depend.
        """
        text, tower = base.model.model.language_model, base.model.get_submodule(base.family.tower)
        handles = [
            text.register_forward_pre_hook(lambda *_: self.settle()),
            tower.register_forward_pre_hook(lambda *_: self.restore()),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.restore()

    def settle(self) -> None:
        """Give the calling thread the number that suits now."""
        if os.environ.get("OMP_NUM_THREADS"):
            return
        if self._chosen is None:
            time.sleep(max(0.0, MOMENT - self._watch.seconds))
        if self._chosen is None or self._watch.seconds >= PERIOD:
            self._chosen = number(len(self._cores), self._watch.others() or 0.0, self._granted)
            self._watch = Watch(self._cores)
            self._tell(self._chosen)
        # Each thread has a number of its own, and a stage may run in another thread than the one before.
        if torch.get_num_threads() != self._chosen:
            torch.set_num_threads(self._chosen)

    def restore(self) -> None:
        """Give the calling thread torch's own number again."""
        if self._chosen is not None:
            torch.set_num_threads(self._own)

    def _tell(self, chosen: int) -> None:
        """Say it once where others hold threads back."""
        if chosen < self._granted and not self._told:
            self._told = True
            logger.info(
                "others use the cores: computes with %d of %d threads while they do (OMP_NUM_THREADS sets a number)",
                chosen,
                self._granted,
            )


class Watch:
    """From its making on, who used the cores: this process, or others.

    Args:
        cores: those that are watched; None for all.
        own: seconds of the processor that count as this process's own until now.
    """

    def __init__(self, cores: Collection[int] | None = None, own: Callable[[], float] = time.process_time) -> None:
        self._cores, self._count_own = cores, own
        self._begun, self._used, self._own = time.monotonic(), used(cores), own()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._begun

    def others(self) -> float | None:
        """How many cores others took in the mean, the hypervisor's other guests among them; None if unknown."""
        now = used(self._cores)
        if now is None or self._used is None:
            return None
        theirs = now - self._used - (self._count_own() - self._own)
        return max(theirs, 0.0) / self.seconds


def number(cores: int, taken: float, most: int) -> int:
    """How many threads to compute with, at least one and at most `most`, where others take so many of the cores."""
    return min(most, max(1, floor(cores - taken + SPARED)))


def used(cores: Collection[int] | None = None) -> float | None:
    """Seconds for which these cores (None: all) were used since the machine started; None where it does not tell."""
    if not STAT.exists():
        return None
    wanted = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    lines = [line.split() for line in STAT.read_text(encoding="ascii").splitlines()]
    counted = [[int(word) for word in words[1:9]] for words in lines if words and words[0] in wanted]
    ticks = sum(each for numbers in counted for place, each in enumerate(numbers) if place not in IDLE)
    return ticks / os.sysconf("SC_CLK_TCK")


def usable() -> frozenset[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def allowance() -> int | None:
    """How many whole cores' time its container grants this process, at least one; None if it grants all."""
    try:
        if (second := QUOTAS / "cpu.max").is_file():  # cgroup's version 2
            quota, period = second.read_text(encoding="ascii").split()
        else:
            first = QUOTAS / "cpu"
            quota = (first / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (first / "cpu.cfs_period_us").read_text(encoding="ascii")
    except OSError:
        return None
    return None if quota in ("max", "-1") else max(1, int(quota) // int(period))
