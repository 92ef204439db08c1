"""FedEx-LoRA (arXiv 2410.09432): the mean of factors, and what it misses kept as a residual. Exact."""

from typing import TYPE_CHECKING

from tasks.federate.lora_mean.with_residual import WithResidual
from tasks.federate.strategies.strategy import Strategy

if TYPE_CHECKING:
    from tasks.federate.lora_mean.products import Product


class MeanAndResidual(WithResidual):
    """Hospitals go on training the mean of factors."""

    def parted(self, whole: "Product", mean: "Product") -> "tuple[Product, Product]":
        """The paper adds the residual to the base's weights; beside them, the base stays the same for all runs."""
        from tasks.federate.lora_mean.products import summed

        _, rest = summed([whole, mean], [1, -1]).truncated(0)
        return mean, rest


def around(strategy: Strategy) -> MeanAndResidual:
    """The rule around a strategy that takes the mean."""
    return MeanAndResidual(strategy)
