"""What a hospital has let out with noise, in all studies, and the epsilon of all of it together.

A coordinator may ask for a round as often as it likes, and for any number of studies: each new answer spends. Its own
word for it is not asked.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.federate.privacy.accounting import epsilon_in_all
from tasks.federate.privacy.budget import Budget
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.durable import read_note, write_note

NAME = "spent.json"


class ReleaseRecord:
    """The record of one hospital, in a file that survives the process.

    Args:
        path: of the file; the first release makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def release(self, update: str, study: str, budget: Budget, most: float | None) -> None:
        """Note that a round's update leaves; one that has left may leave again.

        Raises NotAgreedError if it may not leave: the study would have more rounds than its budget, or all releases
        together a larger epsilon than agreed.

        Args:
            update: tells the update from all others.
            study: tells its study from all others.
            budget: with which it was trained.
            most: largest epsilon of all releases together that hide the same unit; None for any.
        """
        noted = read_note(self._path)
        if update in noted:
            return
        if self.rounds(study) >= budget.rounds:
            raise NotAgreedError(
                f"Expected at most {budget.rounds} updates of a study within its epsilon, found one more: a round is "
                "asked for again with another adapter."
            )
        noise = {"unit": budget.unit, "sigma": budget.sigma, "rate": budget.rate, "steps": budget.steps}
        noted[update] = {"study": study} | noise
        if most is not None and (in_all := _in_all(noted, budget)) > most:
            raise NotAgreedError(
                f"Expected an epsilon of at most {most:g} in all studies together, as it agreed to, found {in_all:.2f} "
                "with this round: raise agreement.epsilon at the hospital, or train without it."
            )
        write_note(self._path, noted)

    def rounds(self, study: str) -> int:
        """How many updates of a study have left."""
        return sum(each["study"] == study for each in read_note(self._path).values())


def _in_all(noted: Mapping[str, Mapping[str, Any]], budget: Budget) -> float:
    """Epsilon of all releases that hide what the budget hides, at its delta and by its accountant."""
    hiding = [each for each in noted.values() if each["unit"] == budget.unit]
    alike = Counter((each["sigma"], each["rate"], each["steps"]) for each in hiding)
    parts = [(sigma, rate, steps * count) for (sigma, rate, steps), count in sorted(alike.items())]
    return epsilon_in_all(parts, budget.delta, budget.accountant)
