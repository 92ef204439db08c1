"""How much of what `torch.matmul` reaches is left in training.

    python -m benchmarks.matmul_efficiency

The matrix products of an epoch are recorded as they run, with their shapes and layouts: those of linear layers, and of
attention, which computes them in one kernel (two forward; four backward, not counting those done again). Their
floating-point operations by the epoch's seconds are held against the same by the seconds that `torch.matmul` takes for
them one after the other, each with its operands in the cache.
"""

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.figure import Figure
from benchmarks.workload import FEDERATION, Work, draw_work, drawn_state
from tasks.engine.batch import encode
from tasks.engine.train import train
from tasks.engine.vision import Features, encode_images

REPEATS = 5
LARGE = 2048
"""Edge of the square matrices that show what the machine can do at best."""

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
        self.products.update(products_of(function.overloadpacket, args))
        return function(*args, **(kwargs or {}))


def products_of(function: Any, args: Any) -> Iterator[Product]:
    """The matrix products that one operator computes."""
    aten = torch.ops.aten
    if function in (aten.mm, aten.bmm):
        yield layout(args[0]), layout(args[1])
    elif function in (aten.addmm, aten.baddbmm):
        yield layout(args[1]), layout(args[2])
    elif function == torch.ops.mkldnn._linear_pointwise:
        yield layout(args[0].flatten(0, -2)), layout(args[1].t())
    elif function == aten._scaled_dot_product_flash_attention_for_cpu:
        query, key, value = args[0], *each_head(args[0], *args[1:3])
        scores = query.new_empty((*query.shape[:3], key.shape[2]))
        yield layout(query), layout(key.transpose(2, 3))
        yield layout(scores), layout(value)
    elif function == aten._scaled_dot_product_flash_attention_for_cpu_backward:
        gradient, query, key, value = *args[:2], *each_head(args[1], *args[2:4])
        scores = query.new_empty((*query.shape[:3], key.shape[2]))
        yield layout(gradient), layout(value.transpose(2, 3))  # of the weights
        yield layout(scores.transpose(2, 3)), layout(gradient)  # of the values
        yield layout(scores), layout(key)  # of the queries
        yield layout(scores.transpose(2, 3)), layout(query)  # of the keys


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


def measure() -> Figure:
    """GFLOP/s of training and of its matrix products alone."""
    work = draw_work()
    features = encode_images(work.engine.base, list(work.images.values()))
    with Recorder() as recorder:
        epoch(work, features)
    total = sum(count * operations(product) for product, count in recorder.products.items())
    spent, alone = [], []
    for _ in range(REPEATS):
        spent.append(epoch(work, features))
        alone.append(sum(count * seconds_of(product) for product, count in recorder.products.items()))
    square = ((LARGE, LARGE), (LARGE, 1))
    best = min(seconds_of((square, square)) for _ in range(REPEATS))
    by_onednn = min(seconds_of((square, square), onednn) for _ in range(REPEATS))
    training, products = statistics.median(spent), statistics.median(alone)
    return Figure(
        "matmul_efficiency",
        total / training / 1e9,
        total / products / 1e9,
        target=None,
        unit="GFLOP/s",
        notes={
            "cases": len(work.train),
            "samples/s": len(work.train) / training,
            "samples/s if only the products took time": len(work.train) / products,
            f"GFLOP/s of {LARGE} x {LARGE} matrices": operations((square, square)) / best / 1e9,
            "GFLOP/s of the same through oneDNN": operations((square, square)) / by_onednn / 1e9,
        },
    )


def epoch(work: Work, features: Features) -> float:
    """Seconds of training on all cases once."""
    base = work.engine.base
    work.engine.switch(drawn_state(work.engine))
    examples = encode(base, features, work.train)
    start = time.perf_counter()
    train(
        work.engine,
        features,
        examples,
        epochs=1,
        batch_size=FEDERATION.batch_size,
        tokens=FEDERATION.tokens_per_pass,
        learning_rate=FEDERATION.learning_rate,
        seed=0,
    )
    return time.perf_counter() - start


def laid_out(shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    """Random numbers in this layout."""
    size = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    return torch.randn(size).as_strided(shape, strides)


def onednn(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The product as the engine's frozen linear layers compute it."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(one, other.t(), None, "none", [], "")
    return found


def seconds_of(product: Product, way: Callable[..., torch.Tensor] = torch.matmul) -> float:
    """The median of three, after one that is not counted."""
    one, other = (laid_out(*each) for each in product)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        way(one, other)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    print(measure())
