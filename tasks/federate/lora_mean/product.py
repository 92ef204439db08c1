"""Mean of the products, truncated to LoRA's rank by SVD (FlexLoRA, arXiv 2402.11505). Approximate.

No product of this rank is nearer to the mean (Eckart and Young); `lost_share` tells how near that is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.federate.lora_mean.of_products import OfProducts
from tasks.federate.strategies.strategy import Strategy

if TYPE_CHECKING:
    from tasks.federate.lora_mean.products import Product


class TruncatedProduct(OfProducts):
    """The nearest factors of LoRA's rank to the mean of the products."""

    def combined(
        self, sent: "Sequence[Product]", shares: Sequence[float], mean: "Product", before: "Product"
    ) -> "Product":
        """By SVD. A gets the norm that the mean of A has, so that a learning rate means the same as with `factors`."""
        from tasks.federate.lora_mean.products import summed

        kept, _ = summed(sent, shares).truncated(len(before.a))
        return kept.scaled_like(mean)


def around(strategy: Strategy) -> TruncatedProduct:
    """The rule around a strategy that takes the mean."""
    return TruncatedProduct(strategy)
