"""FedSVD (arXiv 2505.12805): hospitals train B; the server turns A by an SVD of the product. Exact.

A has orthonormal rows, which bounds the gradient of B: the rule was made for DP-SGD.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.federate.lora_mean.freeze_a import OneFactor
from tasks.federate.strategies.strategy import Strategy

if TYPE_CHECKING:
    import torch

    from tasks.federate.state import ServerState, Update


class TurnedA(OneFactor):
    """`freeze-a`, with A renewed each round. The product has LoRA's rank, so nothing is truncated."""

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """With `U S V = mean(B) A`, the next A is V and the next B is U S."""
        from tasks.federate.lora_mean.products import factors_of, layers, product_of
        from tasks.federate.state import ServerState

        kept = super().aggregate(state, updates).groups
        mean, turned = kept["adapter"], dict[str, "torch.Tensor"]()
        for layer in layers(mean):
            product = product_of(mean, layer)
            turned |= factors_of(product.truncated(len(product.a))[0], layer, mean)
        return ServerState({**kept, "adapter": {**mean, **turned}})


def around(strategy: Strategy) -> TurnedA:
    """The rule around a strategy that keeps nothing between rounds."""
    return TurnedA(strategy)
