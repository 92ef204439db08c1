"""The images of a hospital's page as the model sees them, reduced in size, each embedded once."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.records import read_images
from tasks.records.pixels import to_rgb

LONGEST = 224
"""Largest width or height of a picture in a page, in pixels."""


@dataclass(frozen=True)
class Picture:
    """An image embedded in a page."""

    element: str
    """Id of its element in the page."""
    width: int
    height: int
    data: str
    """The picture as a JPEG in a `data:` address."""
    scale: float = 1.0
    """Width of the picture divided by the width of the image that the model sees."""


def pictures(path: Path, wanted: Iterable[str]) -> Mapping[str, Picture]:
    """Read the wanted images of an `images.parquet`, by id, reduced to at most `LONGEST` pixels a side."""
    left = set(wanted)
    chosen = (image for image in read_images(path) if image.id in left)
    return {image.id: _picture(place, image.data) for place, image in enumerate(chosen)}


def _picture(place: int, data: bytes) -> Picture:
    small = to_rgb(data)
    whole = small.width
    small.thumbnail((LONGEST, LONGEST))
    packed = io.BytesIO()
    small.save(packed, "JPEG", quality=85)
    address = f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Picture(f"image-{place}", *small.size, address, small.width / whole)
