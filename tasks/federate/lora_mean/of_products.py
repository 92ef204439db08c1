"""What rules have in common that make the next factors from the mean of the products, layer by layer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.federate.lora_mean.factors import Factors
from tasks.federate.strategies.strategy import Need

if TYPE_CHECKING:
    import torch

    from tasks.federate.lora_mean.products import Product
    from tasks.federate.state import ServerState, Update


@dataclass(frozen=True)
class OfProducts(Factors, ABC):
    """A rule that replaces the mean of a layer's factors. What is not LoRA stays as the strategy averages it."""

    @property
    def needs(self) -> frozenset[Need]:
        """Each hospital's own tensors, which their sum does not tell."""
        return self.strategy.needs | {"updates"}

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The strategy's next state, with the factors of each layer replaced."""
        from tasks.federate.lora_mean.products import factors_of, layers, product_of, shares_of
        from tasks.federate.state import ServerState, completed

        before = state.groups["adapter"]
        sent = [completed(update.parts["adapter"], before) for update in updates]
        shares = shares_of([update.samples for update in updates])
        mean = {**before, **self.strategy.aggregate(state, updates).groups["adapter"]}
        replaced: dict[str, torch.Tensor] = {}
        for layer in layers(before):
            products = [product_of(each, layer) for each in sent]
            made = self.combined(products, shares, product_of(mean, layer), product_of(before, layer))
            replaced |= factors_of(made, layer, before)
        return ServerState({"adapter": {**mean, **replaced}})

    @abstractmethod
    def combined(
        self, sent: "Sequence[Product]", shares: Sequence[float], mean: "Product", before: "Product"
    ) -> "Product":
        """A layer's next factors.

        Args:
            sent: the factors of each hospital.
            shares: the weights of the hospitals; their sum is 1.
            mean: the mean of the factors.
            before: the factors that all hospitals started from.
        """
