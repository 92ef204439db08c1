"""How much of the cores others used while a benchmark ran: timings beside other work mean nothing."""

import os
import resource
import time
from pathlib import Path

BUSY = 0.1
"""Share of all cores that others may use; no verdict is given beyond it."""
STAT = Path("/proc/stat")
IDLE = (3, 4)
"""Places of idle time and of waiting for disks among the numbers of a line; the others, stolen time too, are use."""


class Watch:
    """From its making on, who used the cores: this process and its ended children, or others."""

    def __init__(self) -> None:
        self._begun, self._used, self._own = time.monotonic(), used(), own()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._begun

    def others(self) -> float | None:
        """Share of all cores' time that others used, the hypervisor's other guests among them; None if unknown."""
        now = used()
        if now is None or self._used is None:
            return None
        theirs = now - self._used - (own() - self._own)
        return max(theirs, 0.0) / (self.seconds * (os.cpu_count() or 1))


def verdict(met: bool | None, share: float | None) -> str:
    """Whether a target is met, of which there may be none; no verdict where others used this share of the cores."""
    if share is None:
        return "not judged: use of the cores unknown"
    if share > BUSY:
        return "not judged: busy cores"
    return {True: "yes", False: "no", None: ""}[met]


def used() -> float | None:
    """Seconds for which cores were used since the machine started; None where the system does not tell."""
    if not STAT.exists():
        return None
    numbers = [int(word) for word in STAT.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return sum(number for place, number in enumerate(numbers) if place not in IDLE) / os.sysconf("SC_CLK_TCK")


def own() -> float:
    """Seconds of the processor that this process and its ended children have used."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)
