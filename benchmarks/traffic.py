"""Bytes that torch's operators read and write, and the seconds that each takes, counted as they run.

An operator is counted as reading each of its inputs once and writing each of its outputs once, whatever its kernel
does. Views cost nothing. Of a table that is looked up in, the rows that were found are read. What lies in a cache
travels faster than memory allows, so the seconds that these bytes take at a memory's speed are no strict bound.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from benchmarks.limit import Product, Recorder, products_of

LOOKUPS = frozenset({"embedding", "index", "index_select", "gather"})
"""Operators that read some rows or numbers of their first argument."""
FILLS = frozenset({"copy_", "fill_", "zero_", "bernoulli_", "uniform_", "normal_"})
"""Operators that write over their first argument without reading it."""


class Meter(Recorder):
    """Counts what each operator computes or moves while it is open, by the operator's name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.calls: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        """Of operators that compute no matrix products."""
        self.products_of: dict[str, Counter[Product]] = {}
        """Of the others."""

    def computed(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What an operator returns, which is computed, timed and counted."""
        name = function._schema.name
        start = self.clock()
        made = function(*args, **kwargs)
        self.seconds[name] += self.clock() - start  # type: ignore[assignment]  # a Counter of fractions
        self.calls[name] += 1
        if products := list(products_of(function.overloadpacket, args, made)):
            self.products.update(products)
            self.products_of.setdefault(name, Counter()).update(products)
        else:
            self.bytes[name] += traffic(function, args, kwargs, made)
        return made


def traffic(function: Any, args: Any, kwargs: Any, made: Any) -> int:
    """Bytes that one operator reads and writes; `made` is what it returned."""
    name = function.overloadpacket.__name__
    given, changed = list(tensors((args, kwargs))), list(written_over(function, args, kwargs))
    known = {place(each) for each in given}
    new = [each for each in tensors(made) if place(each) not in known]
    if name.startswith(("empty", "new_empty")) or not (changed or new):
        return 0
    written = sum(map(size, [*changed, *new]))
    if name.endswith("_like") or name.startswith("new_"):  # their inputs give a shape alone
        return written
    if name in LOOKUPS:
        return 2 * written + sum(map(size, given[1:]))
    return sum(map(size, given[1:] if name in FILLS else given)) + written


def written_over(function: Any, args: Any, kwargs: Any) -> Iterator[torch.Tensor]:
    """The arguments that an operator changes in place."""
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info and argument.alias_info.is_write:
            yield from tensors(args[position] if position < len(args) else kwargs.get(argument.name))


def tensors(tree: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists and mappings."""
    return (each for each in tree_leaves(tree) if isinstance(each, torch.Tensor))


def place(tensor: torch.Tensor) -> int:
    """Where a tensor's numbers are: the same for all views of them."""
    return tensor.untyped_storage().data_ptr()


def size(tensor: torch.Tensor) -> int:
    """Bytes of a tensor; a row that was expanded counts once."""
    lengths = (length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(lengths, start=tensor.element_size())
