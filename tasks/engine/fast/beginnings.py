"""Keeps what was computed of the beginnings of prompts, for later prompts that begin alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tasks.engine.batch import Example
from tasks.engine.recent import Recent


@dataclass(frozen=True)
class Beginning:
    """Keys and values of one beginning, without padding."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Keys and values of each layer, `(1, heads, T, d)`."""
    place: torch.Tensor
    """Position of the next token: `(1, 1)`, or `(3, 1, 1)` for rotary positions in three dimensions."""

    @property
    def length(self) -> int:
        """The number of tokens."""
        return int(self.layers[0][0].shape[2])

    @property
    def nbytes(self) -> int:
        """The size in memory."""
        return sum(each.nbytes for layer in self.layers for each in layer)


class Beginnings:
    """The beginnings used last, of one base with one adapter.

    An image's id must stand for the same image in all of them.

    Args:
        most_bytes: bound on the size of all.
    """

    def __init__(self, most_bytes: int) -> None:
        self._kept: Recent[Beginning] = Recent(most_bytes, lambda each: each.nbytes)

    @property
    def nbytes(self) -> int:
        """The size of all in memory."""
        return self._kept.taken

    def get(self, beginning: Example) -> Beginning | None:
        """What is kept of a beginning."""
        return self._kept.get((beginning.prompt_ids, beginning.image_ids))

    def put(self, beginning: Example, computed: Beginning) -> None:
        """Keep a beginning."""
        self._kept.put((beginning.prompt_ids, beginning.image_ids), computed)


def parted(cache: Any, lengths: Sequence[int], places: torch.Tensor) -> list[Beginning] | None:
    """The rows of a cache, whose padding is on the right; None if a layer keeps more or less than keys and values.

    Args:
        cache: keys and values of `B` rows.
        lengths: tokens of each row.
        places: position of each row's next token, `(B, 1)` or `(3, B, 1)`.
    """
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    return [
        Beginning(
            tuple(
                (layer.keys[row : row + 1, :, :length].clone(), layer.values[row : row + 1, :, :length].clone())
                for layer in cache.layers
            ),
            places[..., row : row + 1, :].clone(),
        )
        for row, length in enumerate(lengths)
    ]


def joined(beginnings: Sequence[Beginning]) -> tuple[DynamicCache, torch.Tensor, torch.Tensor]:
    """A cache of `B` beginnings with padding on the right, its mask `(B, T)`, and the positions as in `parted`."""
    longest = max(each.length for each in beginnings)

    def padded(layer: int, part: int) -> torch.Tensor:
        pieces = [each.layers[layer][part] for each in beginnings]
        return torch.cat([torch.nn.functional.pad(each, (0, 0, 0, longest - each.shape[2])) for each in pieces])

    cache = DynamicCache()
    for layer in range(len(beginnings[0].layers)):
        cache.update(padded(layer, 0), padded(layer, 1), layer)
    device = beginnings[0].place.device
    lengths = torch.tensor([each.length for each in beginnings], device=device)
    mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
    return cache, mask, torch.cat([each.place for each in beginnings], dim=-2)
