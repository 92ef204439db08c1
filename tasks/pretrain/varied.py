"""Altered copies of training images, so that a text model that sees few images does not learn them by heart."""

import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

import PIL.Image
from PIL import ImageEnhance

from tasks.records import Image
from tasks.records.pixels import to_rgb
from tasks.store import derived_seed

KEPT = 0.8
"""Smallest share of each side that a copy keeps."""
DEGREES = 8
LIGHT = 0.25
"""Largest change of brightness and of contrast, as a share."""


def varied_id(image_id: str, number: int) -> str:
    """The id of an altered copy."""
    return f"{image_id}#{number}"


def varied(images: Iterable[Image], copies: int, seed: int) -> Iterator[Image]:
    """The altered copies of each image, numbered from 1, under ids of their own.

    A copy is cropped, turned a little, and changed in brightness and contrast. It is never mirrored: questions ask
    about left and right.
    """
    for image in images:
        for number in range(1, copies + 1):
            yield alter(image, number, random.Random(derived_seed(seed, "varied", image.id, number)))


def alter(image: Image, number: int, chooser: random.Random) -> Image:
    """One altered copy of an image, as PNG."""
    picture = to_rgb(image.data)
    width, height = (max(1, round(side * chooser.uniform(KEPT, 1))) for side in picture.size)
    left, top = chooser.randint(0, picture.width - width), chooser.randint(0, picture.height - height)
    picture = picture.crop((left, top, left + width, top + height))
    picture = picture.rotate(chooser.uniform(-DEGREES, DEGREES), PIL.Image.Resampling.BILINEAR)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        picture = kind(picture).enhance(chooser.uniform(1 - LIGHT, 1 + LIGHT))
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return replace(image, id=varied_id(image.id, number), data=sink.getvalue(), width=width, height=height)
