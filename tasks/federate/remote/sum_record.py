"""Which sums a hospital has signed, so that sums cannot be subtracted from each other until one update is left.

An update is in one signed sum only, ever: once its hospital has signed a set of survivors, it masks this update for the
same circle of hospitals alone, and signs the same set alone. Two sums of one circle then have the same survivors, since
their signers, more than half of the circle each, have a hospital in common. And of sums of several circles the first
one has at least two signers that are in no later one, so that no combination of sums has a single update in it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.durable import read_note, write_note

NAME = "sums.json"


class SumRecord:
    """The record of one hospital, in a file that survives the process.

    Args:
        path: of the file; the first signature makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse_other_circle(self, update: str, hospitals: Mapping[str, bytes]) -> None:
        """Raise NotAgreedError if this hospital signed a sum with an update for another circle of hospitals."""
        signed = read_note(self._path).get(update)
        if signed and signed["hospitals"] != _circle(hospitals):
            self._refuse(signed["hospitals"], hospitals)

    def sign(self, update: str, hospitals: Mapping[str, bytes], survivors: Collection[str]) -> None:
        """Note that a sum with an update is signed. Raises NotAgreedError if another one was signed before."""
        self.refuse_other_circle(update, hospitals)
        found, signing = read_note(self._path), {"hospitals": _circle(hospitals), "survivors": sorted(survivors)}
        signed = found.setdefault(update, signing)
        if signed != signing:
            self._refuse(signed["survivors"], survivors)
        write_note(self._path, found)

    def _refuse(self, before: Collection[str], now: Collection[str]) -> None:
        raise NotAgreedError(
            f"Expected the secure sum of {', '.join(before)}, which was signed for this update before, found one of "
            f"{', '.join(now)}, and their difference would tell: wait for those that are missing, or change the seed."
        )


def _circle(hospitals: Mapping[str, bytes]) -> dict[str, str]:
    return {name: key.hex() for name, key in sorted(hospitals.items())}
