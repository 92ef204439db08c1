"""The gradient of each unit, clipped, and summed over units: no unit changes the sum by more than the clipping norm."""

from collections.abc import Callable, Mapping, Sequence

import torch

from tasks.engine.batch import Example, within
from tasks.engine.engine import Engine
from tasks.engine.fast.stacked import Stack, TrainingHospital
from tasks.engine.fast.stacked import add_gradients as add_stacked_gradients
from tasks.engine.train import add_gradients
from tasks.engine.vision import Features

Unit = Sequence[Example]
Gradients = dict[str, torch.Tensor]
"""By PEFT's exported names, in float32 on the base's device."""
ClippedSum = Callable[[Engine, Features, Sequence[Unit], int, float], tuple[Gradients, float, int]]


def clipped_sum(
    engine: Engine, features: Features, units: Sequence[Unit], tokens: int, clip: float
) -> tuple[Gradients, float, int]:
    """Sum the gradients of units, each scaled down to a norm of at most `clip` over all of the adapter.

    A unit's gradient is that of its mean loss per answer token. Many units pass the base at once, each through its own
    copy of the adapter; where the projector or the tower learns, they pass one after the other.

    Args:
        engine: with the adapter that learns.
        features: features of the units' images.
        units: the examples of each.
        tokens: most tokens in one forward pass, padding included.
        clip: the largest norm of a unit's gradient.

    Returns the sum, the loss summed over all answer tokens, and their number.
    """
    stackable = not engine.tower_learns and not engine.config.modules_to_save
    return (_stacked if stackable else one_by_one)(engine, features, units, tokens, clip)


def one_by_one(
    engine: Engine, features: Features, units: Sequence[Unit], tokens: int, clip: float
) -> tuple[Gradients, float, int]:
    """`clipped_sum` with one unit at a time: the plain way, which the other is held to."""
    parameters = engine.named_parameters()
    total: Gradients = {name: torch.zeros_like(each) for name, each in parameters.items()}
    loss, answered = 0.0, 0
    for unit in units:
        of_unit, count = add_gradients(engine.base, features, unit, tokens)
        gradients = {name: each.grad for name, each in parameters.items() if each.grad is not None}
        norm = torch.stack([each.norm() for each in gradients.values()]).norm()
        for name, gradient in gradients.items():
            total[name] += gradient * scale(norm, clip)
            parameters[name].grad = None
        loss, answered = loss + of_unit, answered + count
    return total, loss, answered


def _stacked(
    engine: Engine, features: Features, units: Sequence[Unit], tokens: int, clip: float
) -> tuple[Gradients, float, int]:
    total: Gradients = {name: torch.zeros_like(each) for name, each in engine.named_parameters().items()}
    loss, answered = 0.0, 0
    for places in within([sum(map(len, unit)) for unit in units], tokens):
        part = [units[place] for place in places]
        stack = Stack(engine, len(part))
        batch = [(number, example) for number, unit in enumerate(part) for example in unit]
        losses, counts = add_stacked_gradients(stack, [TrainingHospital(features, (), 0)] * len(part), batch, tokens)
        _add_clipped(total, stack.weights, clip)
        loss, answered = loss + float(losses.sum()), answered + int(counts.sum())
    return total, loss, answered


def _add_clipped(total: Gradients, weights: Mapping[str, torch.nn.Parameter], clip: float) -> None:
    """Add the clipped gradients of a stack, whose first dimension is the units."""
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    norms = torch.stack([each.flatten(1).norm(dim=1) for each in gradients.values()]).norm(dim=0)
    for name, gradient in gradients.items():
        total[name] += torch.einsum("u,u...->...", scale(norms, clip), gradient)


def scale(norm: torch.Tensor, clip: float) -> torch.Tensor:
    """What a gradient of this norm is multiplied with; 1 where it is within the clipping norm."""
    return (clip / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
