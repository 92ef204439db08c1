"""A hospital's privacy budget: the noise that it adds, and how many rounds this allows."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.errors import StudyError
from tasks.federate.privacy.accounting import Accountant, epsilon, sigma_for, steps_within
from tasks.federate.privacy.mechanism import Mechanism
from tasks.federate.privacy.plan import refuse_large_delta, steps_of_round
from tasks.settings import FederationSettings
from tasks.settings.privacy import Unit

FILE = "privacy.json"


@dataclass(frozen=True)
class Budget:
    """What one hospital does in each round, and for how many rounds it may."""

    hospital: str
    unit: Unit
    units: int
    """Training cases or patients."""
    rate: float
    """The chance of each to be in a step."""
    steps: int
    """Steps of a round."""
    clip: float
    sigma: float
    delta: float
    accountant: Accountant
    rounds: int
    """Rounds, of those that the study asks for, before epsilon is exceeded."""

    @property
    def mechanism(self) -> Mechanism:
        """What a round of training does."""
        return Mechanism(self.rate, self.steps, self.clip, self.sigma)

    def spent(self, rounds: int) -> float:
        """Epsilon after this many rounds."""
        return epsilon(self.sigma, self.rate, rounds * self.steps, self.delta, self.accountant)


def budget_of(hospital: str, units: int, federation: FederationSettings) -> Budget:
    """The budget of a hospital with this many cases or patients; of a coordinator with this many hospitals.

    Raises StudyError if delta is too large for them.
    """
    privacy, by = federation.privacy, federation.privacy.accountant
    refuse_large_delta(privacy.delta, privacy.unit, units)
    if privacy.unit == "hospital":  # each takes part in each round, which is one step of the server
        rate, steps = 1.0, 1
    else:
        rate = min(federation.batch_size / units, 1.0)
        steps = steps_of_round(units, federation.batch_size, federation.local_epochs)
    every = federation.rounds * steps
    sigma = privacy.sigma or sigma_for(privacy.epsilon, rate, every, privacy.delta, by)
    rounds = steps_within(privacy.epsilon, sigma, rate, privacy.delta, every, by) // steps
    return Budget(hospital, privacy.unit, units, rate, steps, privacy.clip, sigma, privacy.delta, by, rounds)


def read_budget(folder: Path) -> Budget:
    """The budget in a folder."""
    return Budget(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def rounds_within(budgets: list[Budget], asked: int, most: float) -> int:
    """The rounds before a hospital's epsilon exceeds `most`; raises StudyError if there are none."""
    least = min(budgets, key=lambda each: each.rounds)
    if not least.rounds:
        raise StudyError(
            f"Expected at least one round within federation.privacy.epsilon={most:g}, found epsilon "
            f"{least.spent(1):.2f} after one at {least.hospital} (sigma {least.sigma:g}, {least.steps} steps of "
            f"{least.rate:.1%} of {least.units} units): raise federation.privacy.sigma, or leave it to be found."
        )
    return min(least.rounds, asked)


def to_json(budget: Budget) -> dict[str, object]:
    """The document of `read_budget`."""
    return asdict(budget)
