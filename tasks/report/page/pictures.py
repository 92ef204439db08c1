"""The images of a hospital's page as the model sees them, small, and each once in it however often it is shown."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.records import read_images
from tasks.records.pixels import to_rgb

LONGEST = 224
"""Longest side of a picture in a page, in pixels."""


@dataclass(frozen=True)
class Picture:
    """An image as a page holds it."""

    element: str
    """Id of its element in the page."""
    width: int
    height: int
    data: str
    """A `data:` address of it, as JPEG."""
    scale: float = 1.0
    """Its pixels for one of the image that the model sees."""


def pictures(path: Path, wanted: Iterable[str]) -> Mapping[str, Picture]:
    """The wanted images of an `images.parquet` by id, no side longer than `LONGEST` pixels."""
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
