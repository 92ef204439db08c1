"""Which tensors of an adapter stay at their hospital."""

from collections.abc import Sequence


def stays(name: str, keeps: Sequence[str]) -> bool:
    """Whether a tensor is part of what is kept: each of `keeps` is one or more parts of dotted names, as `layers.3`."""
    return any(f".{each}." in f".{name}." for each in keeps)
