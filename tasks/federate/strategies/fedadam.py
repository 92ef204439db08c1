"""FedAdam (Reddi et al., arXiv 2003.00295): Adam at the server."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tasks.federate.server_optimiser import ServerOptimiser
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    import torch


def step(
    delta: "torch.Tensor", moments: "Sequence[torch.Tensor]", settings: StrategySettings
) -> "tuple[torch.Tensor, list[torch.Tensor]]":
    """`m = b1 * m + (1 - b1) * delta`, `v = b2 * v + (1 - b2) * delta^2`, `w = w + eta * m / (sqrt(v) + tau)`."""
    first, second = moments
    first = settings.server_beta1 * first + (1 - settings.server_beta1) * delta
    second = settings.server_beta2 * second + (1 - settings.server_beta2) * delta**2
    return settings.server_learning_rate * first / (second.sqrt() + settings.server_tau), [first, second]


def strategy(settings: StrategySettings) -> ServerOptimiser:
    """With `federation.server_learning_rate`, `server_beta1`, `server_beta2` and `server_tau`.

    As in the paper, v begins at tau squared, and neither moment is corrected for its beginning.
    """
    return ServerOptimiser(
        partial(step, settings=settings), {"first-moment": 0.0, "second-moment": settings.server_tau**2}
    )
