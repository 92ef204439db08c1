"""FLoRA (arXiv 2409.05976): the hospitals' factors side by side, whose product is the mean of the products. Exact.

The paper merges the stack into the base and begins with fresh factors in each round. Here the stack is factored anew:
its r largest singular values are what hospitals go on training, and the rest is the residual.
"""

from typing import TYPE_CHECKING

from tasks.federate.lora_mean.with_residual import WithResidual
from tasks.federate.strategies.strategy import Strategy

if TYPE_CHECKING:
    from tasks.federate.lora_mean.products import Product


class Stacked(WithResidual):
    """The nearest factors of LoRA's rank to the whole, and what these miss."""

    def parted(self, whole: "Product", mean: "Product") -> "tuple[Product, Product]":
        """By SVD. A gets the norm that the mean of A has, so that a learning rate means the same as with `factors`."""
        kept, rest = whole.truncated(len(mean.a))
        return kept.scaled_like(mean), rest


def around(strategy: Strategy) -> Stacked:
    """The rule around a strategy that takes the mean."""
    return Stacked(strategy)
