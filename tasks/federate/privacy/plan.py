"""What privacy costs, before anything runs: noise, epsilon, and how loud the noise is beside what is learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from tasks.errors import StudyError
from tasks.federate.privacy.accounting import Accountant, epsilon, sigma_for
from tasks.settings.privacy import PrivacySettings


@dataclass(frozen=True)
class Training:
    """Noisy steps, each of which adds up clipped vectors of units drawn at random."""

    unit: str
    """`example`, `patient` or `hospital`."""
    units: int
    """How many there are."""
    drawn: int
    """How many a step has on average."""
    steps: int
    parameters: int
    """Numbers that are trained."""
    joined: int = 1
    """Trainings whose results are averaged, each with noise of its own: one in each hospital."""

    @property
    def rate(self) -> float:
        """The chance of a unit to be in a step."""
        return min(self.drawn / self.units, 1.0)


@dataclass(frozen=True)
class Plan:
    """What a training would cost."""

    training: Training
    sigma: float
    epsilon: dict[Accountant, float]
    """After all steps, by each accountant that was asked."""

    @property
    def noise_to_signal(self) -> float:
        """The noise of one step over the largest signal: the norms of both, where each unit pulls the same way.

        A step adds noise of standard deviation `sigma * clip` to each parameter, and at most `drawn * clip` of signal.
        The mean over hospitals keeps the signal, and has their noises by the root of their number.
        """
        training = self.training
        return self.sigma * (training.parameters / training.joined) ** 0.5 / training.drawn

    @property
    def noise_to_signal_at_the_end(self) -> float:
        """The same after all steps, if they all go the same way: signals add up, noises as the root of their number."""
        return self.noise_to_signal / self.training.steps**0.5

    @property
    def hopeless(self) -> bool:
        """Whether noise is louder than even the largest signal could be."""
        return self.noise_to_signal_at_the_end > 1


def steps_of_round(units: int, batch: int, epochs: int) -> int:
    """Steps of one round: as many as visit each unit once an epoch, on average."""
    return epochs * ceil(units / batch)


def plan(training: Training, privacy: PrivacySettings) -> Plan:
    """The noise that a training needs, or what the noise of the settings is worth.

    Raises StudyError if `delta` is no small chance beside the number of units.
    """
    refuse_large_delta(privacy.delta, training.unit, training.units)
    rate, steps, delta = training.rate, training.steps, privacy.delta
    sigma = privacy.sigma or sigma_for(privacy.epsilon, rate, steps, delta, privacy.accountant)
    accountants: tuple[Accountant, ...] = ("rdp", "pld")
    return Plan(training, sigma, {by: epsilon(sigma, rate, steps, delta, by) for by in accountants})


def refuse_large_delta(delta: float, unit: str, units: int) -> None:
    """Raise StudyError if delta is as large as what publishing one unit's data outright would have."""
    if delta * units >= 1:
        raise StudyError(
            f"Expected federation.privacy.delta below 1/{units}, found {delta:g}: it allows to publish one {unit} of "
            f"{units} as it is."
        )


def rows(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """The plans as text, headings first."""
    head = ("unit", "in a step", "steps", "sigma", "RDP", "PLD", "noise\na step", "noise\nin all", "")
    return [head, *map(_row, plans)]


def _row(of: Plan) -> tuple[str, ...]:
    training = of.training
    return (
        training.unit,
        f"{training.drawn:,} of {training.units:,}",
        f"{training.steps:,}",
        f"{of.sigma:.3g}",
        f"{of.epsilon['rdp']:.2f}",
        f"{of.epsilon['pld']:.2f}",
        f"{of.noise_to_signal:.2g}",
        f"{of.noise_to_signal_at_the_end:.2g}",
        "hopeless" if of.hopeless else "possible",
    )


def refusal(of: Plan, privacy: PrivacySettings) -> str:
    """Why a hopeless plan is refused, with its figures, in one sentence."""
    training = of.training
    return (
        f"Expected noise below the signal, found {of.noise_to_signal_at_the_end:.1f} times the largest signal after "
        f"{training.steps} steps ({of.noise_to_signal:.0f} times in one step) where {training.drawn} of "
        f"{training.units} {training.unit}s train {training.parameters:,} parameters with sigma {of.sigma:.2f} "
        f"(epsilon {of.epsilon[privacy.accountant]:.2f}, delta {privacy.delta:g}): {_advice(training.unit)}."
    )


def _advice(unit: str) -> str:
    if unit == "hospital":
        return "protect examples or patients, train fewer parameters, or join many more hospitals"
    return "train fewer parameters, enlarge federation.batch_size, or allow a larger federation.privacy.epsilon"
