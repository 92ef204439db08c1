"""FLoRA-NA (arXiv 2509.26399): combinations of the hospitals' factors that come nearest to the mean of the products.

Approximate, with the traffic of the mean of factors.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.federate.lora_mean.of_products import OfProducts
from tasks.federate.strategies.strategy import Strategy

if TYPE_CHECKING:
    import torch

    from tasks.federate.lora_mean.products import Product

SWEEPS = 10
"""Alternating least squares from the weights of the mean: each sweep comes nearer or stays."""


class Nearest(OfProducts):
    """`(sum q_k B_k)(sum p_k A_k)` with the p and q of each layer found by alternating least squares."""

    def combined(
        self, sent: "Sequence[Product]", shares: Sequence[float], mean: "Product", before: "Product"
    ) -> "Product":
        """Solved in the small space that the factors of all hospitals span."""
        import torch

        from tasks.federate.lora_mean.products import Product

        _, upper = torch.linalg.qr(torch.cat([each.b for each in sent], dim=1))
        _, lower = torch.linalg.qr(torch.cat([each.a for each in sent]).T)
        ranks = [len(each.a) for each in sent]
        b, a = torch.stack(upper.split(ranks, dim=1)), torch.stack(lower.split(ranks, dim=1)).mT
        p = q = torch.tensor(shares, dtype=torch.float64)
        target = torch.einsum("k,kij,kjl->il", q, b, a).flatten()
        for _ in range(SWEEPS):
            q = _least_squares(b @ torch.einsum("k,kij->ij", p, a), target)
            p = _least_squares(torch.einsum("k,kij->ij", q, b) @ a, target)
        return Product(
            sum(weight * each.b for weight, each in zip(q, sent, strict=True)),
            sum(weight * each.a for weight, each in zip(p, sent, strict=True)),
        )


def _least_squares(columns: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
    """The weights of `(K, i, l)` matrices whose sum is nearest to a flat target; the smallest where many are."""
    import torch

    return torch.linalg.lstsq(columns.flatten(1).T, target.unsqueeze(1), driver="gelsd").solution.squeeze(1)


def around(strategy: Strategy) -> Nearest:
    """The rule around a strategy that takes the mean."""
    return Nearest(strategy)
