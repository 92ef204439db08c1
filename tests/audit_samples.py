"""Copies of images as they turn up in other datasets, made by Pillow alone."""

import io
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import PIL.Image
import PIL.ImageOps

from tasks.audit.fingerprint import fingerprints
from tasks.audit.pairs import image_pairs
from tasks.records import Image, ImagePair
from tasks.records.pixels import pixel_digest

KINDS = ("resize", "recompress", "contrast", "border", "two of these", "flip")


def load(path: Path, name: str | None = None) -> Image:
    """An image file under its name, or another id."""
    with PIL.Image.open(path) as image:
        return Image(name or path.stem, path.read_bytes(), *image.size)


def as_png(picture: PIL.Image.Image) -> bytes:
    """The picture as a PNG file."""
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()


def copy(data: bytes, kind: str, random: Random) -> bytes:
    """A copy of an image file, changed as the kind says, by random amounts."""
    picture = PIL.Image.open(io.BytesIO(data)).convert("L")
    width, height = picture.size
    if kind == "resize":
        share = random.choice([0.4, 0.5, 0.66, 0.8, 1.3, 1.7])
        size = max(48, int(width * share)), max(48, int(height * share * random.uniform(0.97, 1.03)))
        return as_png(picture.resize(size, PIL.Image.Resampling.BICUBIC))
    if kind == "recompress":
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=random.randint(15, 70))
        return sink.getvalue()
    if kind == "contrast":
        levels = (np.asarray(picture, float) / 255) ** random.choice([0.6, 0.7, 0.8, 1.25, 1.5, 1.7])
        levels = (levels - 0.5) * random.uniform(0.5, 1.4) + 0.5 + random.uniform(-0.12, 0.12)
        return as_png(PIL.Image.fromarray((np.clip(levels, 0, 1) * 255).astype(np.uint8)))
    if kind == "border":
        border = tuple(int(random.uniform(0.02, 0.2) * width) for _ in range(4))
        return as_png(PIL.ImageOps.expand(picture, border, random.choice([0, 40, 128, 255])))
    if kind == "crop":
        left, top, right, bottom = (random.uniform(0.0, 0.1) for _ in range(4))
        box = (int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height))
        return as_png(picture.crop(box))
    if kind == "flip":
        return as_png(random.choice([PIL.ImageOps.mirror, PIL.ImageOps.flip])(picture))
    for each in random.sample(KINDS[:4], 2):
        data = copy(data, each, random)
    return data


def plant(images: list[Image], seed: int, kinds: Sequence[str] = KINDS) -> list[Image]:
    """A copy of each image, of the kinds in turn; its id is that of the original after `copy:`."""
    random = Random(seed)
    copies = []
    for place, image in enumerate(images):
        data = copy(image.data, kinds[place % len(kinds)], random)
        with PIL.Image.open(io.BytesIO(data)) as made:
            copies.append(Image(f"copy:{image.id}", data, *made.size))
    return copies


def find(images: list[Image]) -> list[ImagePair]:
    """The pairs of copies among images."""
    data = {image.id: image.data for image in images}
    return image_pairs(list(fingerprints(images)), lambda wanted: {name: pixel_digest(data[name]) for name in wanted})
