"""How much of the cores others used while a benchmark ran: timings beside other work mean nothing."""

import os
import resource

from tasks.engine import cores

BUSY = 0.1
"""Share of all cores that others may use; no verdict is given beyond it."""


class Watch(cores.Watch):
    """From its making on, who used the cores: this process and its ended children, or others."""

    def __init__(self) -> None:
        super().__init__(own=own)

    def share(self) -> float | None:
        """Share of all cores' time that others used; None if unknown."""
        taken = self.others()
        return None if taken is None else taken / (os.cpu_count() or 1)


def verdict(met: bool | None, share: float | None) -> str:
    """Whether a target is met, of which there may be none; no verdict where others used this share of the cores."""
    if share is None:
        return "not judged: use of the cores unknown"
    if share > BUSY:
        return "not judged: busy cores"
    return {True: "yes", False: "no", None: ""}[met]


def own() -> float:
    """Seconds of the processor that this process and its ended children have used."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)
