"""Products of LoRA factors, in float64, without forming a matrix of the layer's size.

A layer's change is `B @ A` times alpha / r. A sum of such products is one product of wider factors, so sums, norms and
truncations need QR decompositions of `(out, m)` and `(in, m)` matrices only, with m the sum of the ranks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from tasks.federate.state import ServerState
from tasks.records.federation import RESIDUAL

State = Mapping[str, torch.Tensor]
A, B = ".lora_A.weight", ".lora_B.weight"
"""The endings of PEFT's names of the two factors of a layer."""

RESOLUTION = torch.finfo(torch.float32).eps
"""Singular values below this share of the largest are rounding of the float32 tensors that hospitals send."""


@dataclass(frozen=True)
class Product:
    """The product `b @ a` of one layer's factors: b is `(out, m)`, a is `(m, in)`, both float64."""

    b: torch.Tensor
    a: torch.Tensor

    def norm(self) -> float:
        """The Frobenius norm."""
        return float(torch.linalg.matrix_norm(self._core()[1]))

    def truncated(self, rank: int) -> tuple["Product", "Product"]:
        """The nearest product of at most this rank (Eckart and Young), and the rest; singular values are in b.

        The rows of a are orthonormal in both. The first is padded with zeros where the layer is narrower than the rank.
        The rest has no singular value that is zero up to the rounding of float32.
        """
        left, core, right = self._core()
        u, values, v = torch.linalg.svd(core, full_matrices=False)
        b, a = left @ u * values, v @ right.T
        real = int((values > values[0] * RESOLUTION).sum())
        return Product(b[:, :rank], a[:rank]).padded(rank), Product(b[:, rank:real], a[rank:real])

    def padded(self, rank: int) -> "Product":
        """The same product with factors of at least this rank."""
        more = max(rank - len(self.a), 0)
        return Product(functional.pad(self.b, (0, more)), functional.pad(self.a, (0, 0, 0, more)))

    def scaled_like(self, other: "Product") -> "Product":
        """The same product with an a of the norm of another's a."""
        scale = torch.linalg.matrix_norm(other.a) / torch.linalg.matrix_norm(self.a)
        return Product(self.b / scale, self.a * scale) if scale > 0 else self

    def _core(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthonormal left, small core and orthonormal right, with `b @ a = left @ core @ right.T`."""
        left, upper = torch.linalg.qr(self.b)
        right, lower = torch.linalg.qr(self.a.T)
        return left, upper @ lower.T, right


def summed(products: Iterable[Product], weights: Iterable[float]) -> Product:
    """The weighted sum of products, exactly, as one product of wider factors."""
    pairs = list(zip(products, weights, strict=True))
    return Product(
        torch.cat([weight * each.b for each, weight in pairs], dim=1), torch.cat([each.a for each, _ in pairs])
    )


def layers(state: State) -> list[str]:
    """The names of the layers that have LoRA in an adapter, sorted."""
    return sorted(name.removesuffix(A) for name in state if name.endswith(A))


def product_of(state: State, layer: str) -> Product:
    """A layer's product; the factors of a convolution of 1 x 1 are taken as matrices."""
    return Product(state[layer + B].double().flatten(1), state[layer + A].double().flatten(1))


def residual_of(state: ServerState, layer: str) -> Product | None:
    """The product of a layer's residual; None where the server keeps none."""
    return product_of(state.groups[RESIDUAL], layer) if RESIDUAL in state.groups else None


def factors_of(product: Product, layer: str, like: State) -> dict[str, torch.Tensor]:
    """A product as named float32 factors, in the shapes that the layer's factors have in `like`, whatever its rank."""
    b, a = like[layer + B], like[layer + A]
    return {
        layer + A: product.a.float().reshape(-1, *a.shape[1:]).contiguous(),
        layer + B: product.b.float().reshape(len(b), -1, *b.shape[2:]).contiguous(),
    }


def shares_of(samples: Sequence[int]) -> list[float]:
    """The weights of a sample-weighted mean."""
    return [each / sum(samples) for each in samples]
