"""DP-SGD (Abadi et al., arXiv 1607.00133) on an adapter, with AdamW: noise hides whether a unit is in the data."""

from collections.abc import Sequence

import torch

from tasks.engine.engine import Engine
from tasks.engine.progress import Progress
from tasks.engine.train import Correction
from tasks.engine.vision import Features
from tasks.federate.privacy.gradients import Gradients, Unit, clipped_sum
from tasks.federate.privacy.mechanism import Mechanism
from tasks.federate.privacy.noise import Noise
from tasks.store.checkpoints import Checkpoint


def train_privately(
    engine: Engine,
    features: Features,
    units: Sequence[Unit],
    mechanism: Mechanism,
    noise: Noise,
    *,
    tokens: int,
    learning_rate: float,
    seed: int,
    correct: Correction | None = None,
    title: str = "training",
    checkpoint: Checkpoint | None = None,
) -> tuple[float, int]:
    """Train the adapter with noisy gradients.

    Each step draws every unit with the same chance, so that a step may have many units or none (Poisson sampling). It
    sums their clipped gradients, adds noise, and divides by the number of units that a step has on average.

    A step's place in the stream of noise follows from its number alone. So a training that goes on from a checkpoint
    has the units and the noise that it would have had, each once, and the accountant's figures hold.

    Args:
        units: the examples of each unit.
        mechanism: what the accountant was told.
        noise: which units a step has, and the noise; secret.
        tokens: most tokens in one forward pass, padding included.
        seed: seed of dropout, which may be known.
        correct: a strategy's correction of the noisy gradients; it may depend on what was released before.
        checkpoint: as in `train`.

    Returns the mean loss per answer token over all steps, which has no noise, and the number of steps.
    """
    torch.manual_seed(seed)
    parameters = engine.named_parameters()
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=0.0, fused=True)
    progress = Progress(title, parameters, optimiser, checkpoint, correct)
    noise.begin_at(progress.taken * (len(units) + sum(each.numel() for each in parameters.values())))
    engine.peft.train()
    try:
        for _ in progress.left(range(mechanism.steps)):
            drawn = draw(units, mechanism.rate, noise)
            gradients, loss, count = clipped_sum(engine, features, drawn, tokens, mechanism.clip)
            add_noise(gradients, mechanism.sigma * mechanism.clip, noise)
            for name, parameter in parameters.items():
                parameter.grad = gradients[name] / (mechanism.rate * len(units))
            if correct:
                correct(parameters)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            progress.count(loss, count)
    finally:
        engine.peft.eval()
        optimiser.zero_grad(set_to_none=True)
    return progress.mean_loss, progress.taken


def draw(units: Sequence[Unit], rate: float, noise: Noise) -> list[Unit]:
    """Each unit with a chance of `rate`, independent of all others."""
    return [unit for unit, at in zip(units, noise.uniform(len(units)), strict=True) if at < rate]


def add_noise(gradients: Gradients, deviation: float, noise: Noise) -> None:
    """Add independent normal noise to every number, in place; tensors in the order of their names."""
    for _, gradient in sorted(gradients.items()):
        drawn = torch.from_numpy(noise.normal(gradient.numel())).view(gradient.shape)
        gradient += (deviation * drawn).to(gradient)
