"""What exact rules have in common that keep a residual: a second adapter, which does not learn, for all of the rest.

Hospitals compute with the sum of both, and train the first from where it is. The residual's rank grows by the sum of
the hospitals' ranks in each round, up to the layer's width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.lora_mean.factors import Factors
from tasks.federate.strategies.strategy import Need
from tasks.records.federation import RESIDUAL

if TYPE_CHECKING:
    import torch

    from tasks.federate.lora_mean.products import Product
    from tasks.federate.state import ServerState, Update


@dataclass(frozen=True)
class WithResidual(Factors, ABC):
    """A rule that parts the mean of the products into the next factors and a residual, layer by layer."""

    exact: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Need]:
        """Each hospital's own tensors, which their sum does not tell."""
        return self.strategy.needs | {"updates"}

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The strategy's next state, with the factors of each layer replaced, and the residual."""
        from tasks.federate.lora_mean.products import factors_of, layers, product_of, residual_of, shares_of, summed
        from tasks.federate.state import ServerState

        before = state.groups["adapter"]
        shares = shares_of([update.samples for update in updates])
        mean = dict(self.strategy.aggregate(state, updates).groups["adapter"])
        residual: dict[str, torch.Tensor] = {}
        for layer in layers(before):
            whole = summed([product_of(update.parts["adapter"], layer) for update in updates], shares)
            if kept := residual_of(state, layer):
                whole = summed([whole, kept], [1, 1])
            factors, rest = self.parted(whole, product_of(mean, layer))
            mean |= factors_of(factors, layer, before)
            residual |= factors_of(rest, layer, before)
        return ServerState({"adapter": mean, RESIDUAL: residual})

    @abstractmethod
    def parted(self, whole: "Product", mean: "Product") -> "tuple[Product, Product]":
        """A layer's next factors, and its residual: their sum is `whole`.

        Args:
            whole: the mean of the products, and the residual so far.
            mean: the mean of the factors.
        """
