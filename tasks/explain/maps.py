"""Where an answer comes from, as arithmetic on attention: a weight for every token of the prompt, and maps of these.

All of it works on plain arrays: `layers` is one array `(heads, T, T)` for each layer, the first layer first, whose row
`i` is what position `i` takes from the others.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]
"""`(T,)`: a weight for each position."""


def attention_row(layers: Sequence[NDArray[np.float32]], position: int) -> Row:
    """What one position attends to, the mean over layers and heads."""
    return np.mean([layer[:, position].mean(0, dtype=np.float64) for layer in layers], axis=0)


def rollout_row(layers: Sequence[NDArray[np.float32]], position: int) -> Row:
    """Attention rollout (Abnar and Zuidema, arXiv 2005.00928): one position's row of the product over layers.

    Heads are averaged, the residual stream is half of each layer. What stays at the position itself is left out.
    """
    row = np.zeros(layers[0].shape[-1])
    row[position] = 1.0
    for layer in reversed(layers):
        row = 0.5 * (row + row @ layer.mean(0, dtype=np.float64))
    row[position] = 0.0
    return row


def relevance_row(
    layers: Sequence[NDArray[np.float32]], gradients: Sequence[NDArray[np.float32]], position: int
) -> Row:
    """Gradient-weighted attention relevance (Chefer, Gur and Wolf, arXiv 2103.15679) of the prediction at one position.

    Attention is weighted by its gradient, only what speaks for the prediction counts, heads are averaged, and the
    layers are gone through with the residual stream. What stays at the position itself is left out.
    """
    row = np.zeros(layers[0].shape[-1])
    row[position] = 1.0
    for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        weighted = np.clip(layer * gradient, 0, None)
        row = row + row @ weighted.mean(0, dtype=np.float64)
    row[position] = 0.0
    return row


def share_by_part(row: Row, parts: NDArray[np.int8], names: Sequence[str]) -> dict[str, float]:
    """The share of each part of the prompt in a row's weight; they sum to 1, or are all 0 where there is no weight.

    Args:
        row: of all positions; those after the prompt are left out.
        parts: `(T of the prompt,)`, indices into names.
        names: of the parts.
    """
    weight = np.clip(row[: len(parts)], 0, None)
    total = weight.sum()
    return {name: float(weight[parts == part].sum() / total) if total else 0.0 for part, name in enumerate(names)}


def as_map(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights `(rows, columns)` as shares that sum to 1; negative ones count as 0, and no weight at all is even."""
    positive = np.clip(weights, 0, None)
    total = positive.sum()
    return positive / total if total > 0 else np.full(weights.shape, 1 / weights.size)


def entropy(weights: NDArray[np.float64]) -> float:
    """How evenly a map is spread: its entropy over that of an even one, from 0 (one cell) to 1 (all the same)."""
    shares = as_map(weights).ravel()
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(weights.size)) if weights.size > 1 else 1.0


def coverage(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.float64]:
    """The share of each grid cell that a mask `(height, width)` covers, `(rows, columns)`, by the cells' own edges."""
    down = np.linspace(0, mask.shape[0], rows + 1).round().astype(int)
    across = np.linspace(0, mask.shape[1], columns + 1).round().astype(int)
    return np.array(
        [[_mean(mask[top:bottom, left:right]) for left, right in pairwise(across)] for top, bottom in pairwise(down)]
    )


def _mean(part: NDArray[np.bool_]) -> float:
    return float(part.mean()) if part.size else 0.0
