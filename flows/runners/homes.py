"""Which worker a hospital's tasks go to."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tasks.records.federation import HospitalRefs, LibrarySources


class Homes:
    """Each hospital keeps one worker: its features lie there, and the engine in memory has served it before.

    Args:
        workers: the addresses of the workers that are there now.
        holding: those of them that have a folder of the artifacts on a disk of their own or of theirs in common.
    """

    def __init__(self, workers: Callable[[], Collection[str]], holding: Callable[[str], Collection[str]]) -> None:
        self._workers, self._holding = workers, holding
        self._homes: dict[str, str] = {}

    def of(self, parameters: Mapping[str, Any]) -> str | None:
        """The worker for a task with these parameters; None if it is of no hospital.

        A hospital that is new, or whose worker has left, gets the one with the fewest hospitals among those that have
        its features, or among all if none has.
        """
        hospital = parameters.get("hospital")
        name = hospital if isinstance(hospital, str) else getattr(hospital, "name", None)
        if name is None:
            return None
        there = self._workers()
        if self._homes.get(name) not in there:
            near = set[str]()
            if isinstance(hospital, HospitalRefs | LibrarySources):
                near = set(self._holding(hospital.features.path)) & set(there)
            served = Counter(self._homes.values())
            self._homes[name] = min(near or there, key=lambda worker: (served[worker], worker))
        return self._homes[name]
