"""The least time that a way's matrix products take here, each in the quicker of torch's two ways for its shape.

The ways are `torch.matmul` and oneDNN, as the engine's frozen layers use it.

Products are recorded as they run, with their shapes and layouts: those of linear layers and convolutions, and those of
attention, which computes them in one kernel (two forward; four backward, not counting those done again). What else a
way does takes time as well, so a reference's seconds by these are the largest ratio that these products allow.
"""

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides."""
Product = tuple[Layout, Layout]


class Recorder(TorchDispatchMode):
    """Counts the matrix products that are computed while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and compute."""
        with self:  # without gradients, operators come whole: a linear layer, attention
            parts = function.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        return self.computed(function, args, kwargs or {})

    def computed(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What an operator returns, which is computed and counted."""
        made = function(*args, **kwargs)
        self.products.update(products_of(function.overloadpacket, args, made))
        return made


def products_of(function: Any, args: Any, made: Any) -> Iterator[Product]:
    """The matrix products that one operator computes; `made` is what it returned."""
    aten = torch.ops.aten
    if function in (aten.mm, aten.bmm):
        yield layout(args[0]), layout(args[1])
    elif function in (aten.addmm, aten.baddbmm):
        yield layout(args[1]), layout(args[2])
    elif function == torch.ops.mkldnn._linear_pointwise:
        yield layout(args[0].flatten(0, -2)), layout(args[1].t())
    elif function == aten.convolution:
        yield as_product(args[1], made)
    elif function == aten._scaled_dot_product_flash_attention_for_cpu:
        query, key, value = args[0], *each_head(args[0], *args[1:3])
        scores = query.new_empty((*query.shape[:3], key.shape[2]))
        yield layout(query), layout(key.transpose(2, 3))
        yield layout(scores), layout(value)
    elif function == aten._scaled_dot_product_flash_attention_for_cpu_backward:
        gradient, query = args[:2]
        key, value = each_head(query, *args[2:4])
        scores = query.new_empty((*query.shape[:3], key.shape[2]))
        yield layout(gradient), layout(value.transpose(2, 3))  # of the weights
        yield layout(scores.transpose(2, 3)), layout(gradient)  # of the values
        yield layout(scores), layout(key)  # of the queries
        yield layout(scores.transpose(2, 3)), layout(query)  # of the keys


def as_product(kernels: torch.Tensor, made: torch.Tensor) -> Product:
    """A convolution as the product of its unfolded images and its kernels."""
    patch = kernels[0].numel()
    places = made.numel() // made.shape[1]
    return ((places, patch), (patch, 1)), ((patch, kernels.shape[0]), (1, patch))


def each_head(query: torch.Tensor, *shared: torch.Tensor) -> list[torch.Tensor]:
    """Keys or values `(B, heads, T, d)` that several of the query's heads share, once for each of them."""
    return [each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in shared]


def layout(tensor: torch.Tensor) -> Layout:
    """Shape and strides of a tensor."""
    return tuple(tensor.shape), tuple(tensor.stride())


def operations(product: Product) -> int:
    """Floating-point operations of one product, a multiplication and an addition counted each."""
    (shape, _), (other, _) = product
    return 2 * math.prod(shape) * other[-1]


def laid_out(shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    """Random numbers in this layout."""
    size = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    return torch.randn(size).as_strided(shape, strides)


def onednn(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The product as the engine's frozen linear layers compute it."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(one, other.t(), None, "none", [], "")
    return found


def seconds_of(
    product: Product,
    way: Callable[..., torch.Tensor] = torch.matmul,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The median of three, after one that is not counted."""
    one, other = (laid_out(*each) for each in product)
    seconds = []
    for _ in range(4):
        start = clock()
        way(one, other)
        seconds.append(clock() - start)
    return statistics.median(seconds[1:])


def limit(way: Callable[[], object]) -> float:
    """Seconds of a way's matrix products alone."""
    with Recorder() as recorder:
        way()
    return sum(count * quickest(product) for product, count in recorder.products.items())


def quickest(product: Product, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one product in the quicker way; oneDNN's is for two matrices."""
    ways = (torch.matmul, onednn) if len(product[0][0]) == 2 else (torch.matmul,)
    return min(seconds_of(product, way, clock) for way in ways)
