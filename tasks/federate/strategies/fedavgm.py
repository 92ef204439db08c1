"""FedAvgM (Hsu et al., arXiv 1909.06335): federated averaging with momentum on the server."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tasks.federate.server_optimiser import ServerOptimiser
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    import torch


def step(
    delta: "torch.Tensor", moments: "Sequence[torch.Tensor]", momentum: float
) -> "tuple[torch.Tensor, list[torch.Tensor]]":
    """The mean delta, plus a share of the previous step: `v = momentum * v + delta`, `w = w + v`."""
    (last,) = moments
    this = momentum * last + delta
    return this, [this]


def strategy(settings: StrategySettings) -> ServerOptimiser:
    """With `federation.server_momentum`."""
    return ServerOptimiser(partial(step, momentum=settings.server_momentum), {"momentum": 0.0})
