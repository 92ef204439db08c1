"""FedRot-LoRA (arXiv 2602.23638): factors are rotated towards the round's start before the mean. Approximate.

`B A = (B R)(R^T A)` for every orthogonal R, so each hospital's product stays. The rotation is whole: the paper also has
a softened one.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.federate.lora_mean.factors import Factors
from tasks.federate.strategies.strategy import Need, Strategy

if TYPE_CHECKING:
    import torch

    from tasks.federate.lora_mean.products import Product
    from tasks.federate.state import ServerState, State, Update


class Rotated(Factors):
    """The mean of factors that are aligned by A in odd rounds and by B in even ones."""

    @property
    def needs(self) -> frozenset[Need]:
        """Each hospital's own tensors, since the server rotates them."""
        return self.strategy.needs | {"updates"}

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The strategy's next state of rotated updates."""
        before = state.groups["adapter"]
        turned = [
            replace(
                update,
                parts={**update.parts, "adapter": _turned(update.parts["adapter"], before, update.base_round % 2 == 0)},
            )
            for update in updates
        ]
        return super().aggregate(state, turned)


def _turned(sent: "State", before: "State", by_a: bool) -> "dict[str, torch.Tensor]":
    from tasks.federate.lora_mean.products import factors_of, layers, product_of

    turned = dict(sent)
    for layer in layers(sent):
        turned |= factors_of(aligned(product_of(sent, layer), product_of(before, layer), by_a), layer, sent)
    return turned


def aligned(product: "Product", to: "Product", by_a: bool) -> "Product":
    """The same product with rotated factors, of which a (or b) is nearest to that of another product (Procrustes)."""
    import torch

    from tasks.federate.lora_mean.products import Product

    u, _, v = torch.linalg.svd(product.a @ to.a.T if by_a else product.b.T @ to.b)
    rotation = u @ v
    return Product(product.b @ rotation, rotation.T @ product.a)


def around(strategy: Strategy) -> Rotated:
    """The rule around a strategy."""
    return Rotated(strategy)
