"""Local training within a hospital's privacy budget."""

from collections.abc import Sequence
from typing import Any

from tasks.engine.engine import Engine
from tasks.engine.hospital import Hospital
from tasks.federate.privacy.budget import read_budget
from tasks.federate.privacy.dp_sgd import train_privately
from tasks.federate.privacy.noise import Noise
from tasks.federate.privacy.secret import noise_secret
from tasks.federate.privacy.units import units_of
from tasks.records import Case
from tasks.records.federation import HospitalRefs
from tasks.settings import ContextSettings


def train_within_budget(
    engine: Engine,
    data: Hospital,
    training: Sequence[Case],
    context: ContextSettings,
    hospital: HospitalRefs,
    purpose: str,
    how: dict[str, Any],
) -> tuple[float, int]:
    """Train the adapter on a hospital's cases for one round, with the noise of its budget.

    Args:
        engine: with the adapter that the round begins with.
        data: the hospital's opened files.
        training: the cases to learn from.
        context: how prompts are built; without retrieved cases, which would put a case into other units' prompts.
        hospital: names the secret of the noise, and the budget.
        purpose: what the noise is for: a digest of everything that the round's result follows from.
        how: the other parameters of `train_privately`.

    Returns the mean loss per answer token and the number of steps.
    """
    assert hospital.budget and not context.most
    budget = read_budget(hospital.budget.folder)
    units = [data.examples(engine.base, cases, context) for cases in units_of(training, budget.unit)]
    noise = Noise(noise_secret(f"hospitals/{hospital.name}"), purpose)
    return train_privately(engine, data.seen_by(engine), units, budget.mechanism, noise, **how)
