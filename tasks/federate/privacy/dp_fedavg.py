"""The noisy mean of clipped updates: whether a hospital took part is hidden (McMahan et al., arXiv 1710.06963)."""

import hashlib
from collections.abc import Mapping, Sequence

import torch

from tasks.federate.privacy.gradients import scale
from tasks.federate.privacy.noise import Noise

State = Mapping[str, torch.Tensor]


def noisy_mean(
    start: State, updates: Sequence[State], clip: float, sigma: float, secret: bytes
) -> dict[str, torch.Tensor]:
    """What a round makes of its start: plus the mean of the clipped updates, plus noise. Computed in float64.

    Args:
        start: the tensors that all hospitals started from.
        updates: what each made of them; all count the same.
        clip: the largest norm of an update's difference from the start.
        sigma: noise multiplier: the noise in the sum has a standard deviation of `sigma * clip`.
        secret: what the noise follows from, beside the start and the updates; known to who adds them up.
    """
    noise = Noise(secret, f"mean {clip} {sigma} {_digest([start, *updates])}")

    def step(update: State, name: str) -> torch.Tensor:
        return update[name].double() - start[name].double()

    norms = [torch.stack([step(each, name).norm() for name in sorted(start)]).norm() for each in updates]
    factors = [scale(norm, clip) for norm in norms]
    made = {}
    for name in sorted(start):
        steps = (factor * step(each, name) for factor, each in zip(factors, updates, strict=True))
        total = sum(steps, torch.zeros(()))
        drawn = torch.from_numpy(noise.normal(start[name].numel())).view(start[name].shape)
        made[name] = (start[name].double() + (total + sigma * clip * drawn) / len(updates)).float()
    return made


def _digest(states: Sequence[State]) -> str:
    """A digest of names and numbers, so that no two sums have the same noise."""
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
