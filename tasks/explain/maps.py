"""Attribution by attention, as array arithmetic: a weight for every token of the prompt, and maps of these weights.

`layers` is one array `(heads, T, T)` per layer, first layer first. Row `i` is the attention of position `i` to the
other positions.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]
"""`(T,)`: a weight for each position."""


def attention_row(layers: Sequence[NDArray[np.float32]], position: int) -> Row:
    """The attention of one position, averaged over layers and heads."""
    return np.mean([layer[:, position].mean(0, dtype=np.float64) for layer in layers], axis=0)


def rollout_row(layers: Sequence[NDArray[np.float32]], position: int) -> Row:
    """Attention rollout (Abnar and Zuidema, arXiv 2005.00928): one position's row of the product over layers.

    Heads are averaged, and the residual stream is half of each layer. The position's weight on itself is set to 0.
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

    Attention is multiplied by its gradient, negative products are set to 0, heads are averaged, and layers are combined
    with the residual stream. The position's weight on itself is set to 0.
    """
    row = np.zeros(layers[0].shape[-1])
    row[position] = 1.0
    for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        weighted = np.clip(layer * gradient, 0, None)
        row = row + row @ weighted.mean(0, dtype=np.float64)
    row[position] = 0.0
    return row


def share_by_part(row: Row, parts: NDArray[np.int8], names: Sequence[str]) -> dict[str, float]:
    """The share of each part of the prompt in a row's weight; shares sum to 1, or are all 0 if there is no weight.

    Args:
        row: weights of all positions; those after the prompt are ignored, and negative weights count as 0.
        parts: `(tokens of the prompt,)`, each token's part as an index into `names`.
        names: the parts' names.
    """
    weight = np.clip(row[: len(parts)], 0, None)
    total = weight.sum()
    return {name: float(weight[parts == part].sum() / total) if total else 0.0 for part, name in enumerate(names)}


def as_map(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights `(rows, columns)` as shares that sum to 1; negative ones count as 0. If all are 0, shares are equal."""
    positive = np.clip(weights, 0, None)
    total = positive.sum()
    return positive / total if total > 0 else np.full(weights.shape, 1 / weights.size)


def entropy(weights: NDArray[np.float64]) -> float:
    """How evenly a map is spread: its entropy divided by that of an even map, from 0 (one cell) to 1 (even)."""
    shares = as_map(weights).ravel()
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(weights.size)) if weights.size > 1 else 1.0


def coverage(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.float64]:
    """The share of each grid cell that a mask `(height, width)` covers, `(rows, columns)`; edges are whole pixels."""
    down = np.linspace(0, mask.shape[0], rows + 1).round().astype(int)
    across = np.linspace(0, mask.shape[1], columns + 1).round().astype(int)
    return np.array(
        [[_mean(mask[top:bottom, left:right]) for left, right in pairwise(across)] for top, bottom in pairwise(down)]
    )


def _mean(part: NDArray[np.bool_]) -> float:
    return float(part.mean()) if part.size else 0.0
