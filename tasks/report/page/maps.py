"""Saliency maps for a page: small transparent pictures, one pixel for each region, to be laid over an image."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from matplotlib import colormaps
from numpy.typing import NDArray

from tasks.records import Saliency

COLOURS = "inferno"
"""Colour map from dark to bright in even steps, readable for the colour-blind and in grey print."""
OPACITY = 0.55
"""Opacity of the region with the largest weight; a region of weight 0 is not coloured."""


@dataclass(frozen=True)
class Map:
    """One method's map of one image."""

    method: str
    rank: int | None
    """As in `Saliency`."""
    left: float
    """Position, like the three below, in pixels of the image."""
    top: float
    width: float
    height: float
    data: str
    """The map as a PNG in a `data:` address."""


def maps_of(rows: Sequence[Saliency]) -> list[Map]:
    """The maps of one case as pictures; for each method, all images of a prompt share one scale."""
    largest = {method: max(max(row.weights) for row in rows if row.method == method) for method in _methods(rows)}
    return [_map(row, largest[row.method]) for row in rows]


def _methods(rows: Sequence[Saliency]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _map(row: Saliency, largest: float) -> Map:
    left, top, right, bottom = row.window
    packed = io.BytesIO()
    PIL.Image.fromarray((tinted(row, largest) * 255).round().astype(np.uint8), "RGBA").save(packed, "PNG")
    data = f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Map(row.method, row.rank, left, top, right - left, bottom - top, data)


def tinted(row: Saliency, largest: float) -> NDArray[np.float64]:
    """Colour a map's regions: `(rows, columns, 4)` from 0 to 1, as red, green, blue, opacity.

    `largest` is the weight of full strength. Regions whose weight is not positive are clear.
    """
    weights = np.clip(np.reshape(row.weights, (row.rows, row.columns)), 0, None)
    strength = weights / largest if largest > 0 else weights
    colours = colormaps[COLOURS](strength)
    colours[..., 3] = OPACITY * strength
    return colours
