"""Saliency maps as a page holds them: small transparent pictures, a pixel a region, to be laid over an image."""

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
"""From dark to bright in even steps: it reads the same for the colour-blind and in grey print."""
OPACITY = 0.55
"""Of the heaviest region; a region of no weight is not coloured."""


@dataclass(frozen=True)
class Map:
    """One method's map of one image."""

    method: str
    rank: int | None
    """As `Saliency`'s."""
    left: float
    """Where it lies, as the three below, in pixels of the image."""
    top: float
    width: float
    height: float
    data: str
    """A `data:` address of it, as PNG."""


def maps_of(rows: Sequence[Saliency]) -> list[Map]:
    """The maps of one case as pictures; all images of a prompt share one scale for each method."""
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
    """A map's regions as colours, `(rows, columns, 4)` from 0 to 1: red, green, blue, opacity.

    `largest` is the weight of full strength. Regions of no weight or a negative one are clear.
    """
    weights = np.clip(np.reshape(row.weights, (row.rows, row.columns)), 0, None)
    strength = weights / largest if largest > 0 else weights
    colours = colormaps[COLOURS](strength)
    colours[..., 3] = OPACITY * strength
    return colours
