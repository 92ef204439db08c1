"""What picture an image file shows: the one place that decides it, for all who look at images.

Engine, encoders, audit, maps and pages all see what `to_rgb` gives: 8-bit RGB, as a viewer shows the file.

- Of several frames or pages, it is the first.
- It stands upright: the orientation that EXIF states is applied.
- What is transparent shows white behind it, as a page does.
- Gray of more than 8 bits (16-bit, 32-bit, float) is scaled from its own range to 0 to 255. Values that are not finite
  do not count in that range: NaN is black, as is minus infinity, and infinity is white.
- Colours of 16 bits keep their upper 8. Colour profiles (ICC) are not applied.
- 1-bit, palette, CMYK and YCbCr images become RGB as Pillow converts them. LAB and HSV are refused.
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from tasks.errors import OURS

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000")
"""Formats that Pillow decodes itself; others start outside programs, as EPS does."""
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", *DEEP)
"""Pillow's modes whose way to RGB is known."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""A TIFF's tag that says what its levels mean, and the value by which small ones are bright."""
BITS, SAMPLE_FORMAT, UNSIGNED = 258, 339, (1,)
"""A TIFF's tags that say of which numbers its levels are, and the value of whole numbers without a sign."""

_one_at_a_time = threading.Lock()


class PictureError(ValueError):
    """Why bytes show no picture: what was found, for a message, and what to do about it."""

    def __init__(self, found: str, remedy: str = "restore the file as published") -> None:
        super().__init__(found)
        self.remedy = remedy


def to_rgb(data: bytes) -> PIL.Image.Image:
    """The picture that an image file shows, of mode RGB, by the rules at the top.

    Raises PictureError where the bytes are no image, a damaged one, or in colours that cannot be converted.
    """
    return rgb_of(opened(data))


def opened(data: bytes) -> PIL.Image.Image:
    """An image file of which only the header was read; its size is that of the stored rows, before any turning.

    Raises PictureError where the bytes are no image or in colours that cannot be converted, and Pillow's
    DecompressionBombError where the header tells of more pixels than any image has.
    """
    try:
        with _quietly():
            image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except (PIL.Image.DecompressionBombError, *OURS):
        raise
    except Exception:  # damaged bytes make Pillow's decoders raise nearly anything
        raise PictureError(f"{len(data):,} bytes that are no image") from None
    if image.mode not in MODES:
        raise PictureError(f"an image in {image.mode} colours, which cannot be read", "save it as RGB")
    return image


def rgb_of(image: PIL.Image.Image) -> PIL.Image.Image:
    """`to_rgb` of an image that `opened` gave."""
    _decode(image)
    try:
        shown = PIL.Image.fromarray(scaled(_levels(image))) if image.mode in DEEP else _flat(image)
        plain = shown.convert("RGB")
    except OURS:
        raise
    except Exception as error:
        raise _damaged(error) from None
    plain.info = {}  # what is saved of it, as in a page, holds its pixels alone and none of the file's comments
    return plain


def to_gray(data: bytes, near: int) -> PIL.Image.Image:
    """The same picture in gray, of mode L; a JPEG is decoded at a smaller size, its longest side at least `near`.

    Raises what `to_rgb` raises.
    """
    image = opened(data)
    image.draft("L", (near, near))
    if image.mode != "L" or image.has_transparency_data:
        return rgb_of(image).convert("L")
    _decode(image)
    return image


def pixel_levels(data: bytes) -> NDArray[np.float64] | NDArray[np.uint8]:
    """The pixels by which two files show the very same: `to_rgb`'s, `(h, w, 3)`, or deep gray unscaled, `(h, w)`.

    Raises what `to_rgb` raises.
    """
    image = opened(data)
    if image.mode not in DEEP:
        return np.asarray(rgb_of(image))
    _decode(image)
    return _levels(image)


def picture_digest(image: PIL.Image.Image) -> str:
    """What tells pictures apart that `to_rgb` gave: equal where size and pixels are."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def scaled(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Levels `(h, w)` from 0 for the least to 255 for the largest; all 0 where these are one."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return ((values - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)


def _decode(image: PIL.Image.Image) -> None:
    """Decode every pixel and turn the image upright, in place."""
    try:
        image.load()
    except OURS:
        raise
    except Exception as error:
        raise _damaged(error) from None
    try:
        with _quietly():
            PIL.ImageOps.exif_transpose(image, in_place=True)
    except OURS:
        raise
    except Exception:
        return  # of EXIF that cannot be read, nothing is known; every viewer shows such an image as it is stored


def _levels(image: PIL.Image.Image) -> NDArray[np.float64]:
    """Deep gray `(h, w)` in the file's own unit, small values dark."""
    values = np.asarray(image, dtype=np.float64)
    transparent = image.info.get("transparency")
    if transparent is not None:
        values = np.where(values == transparent, np.inf, values)  # which is white
    tags = getattr(image, "tag_v2", {})
    if tags.get(BITS) == (32,) and tags.get(SAMPLE_FORMAT, UNSIGNED) == UNSIGNED:
        values = values % 2**32  # Pillow has no such mode, and reads the upper half as negative
    # Pillow turns the levels of 8 bits itself, but not the deeper ones.
    return -values if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else values


def _flat(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image with white behind what is transparent."""
    if not image.has_transparency_data:
        return image
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts it to
    image = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)


def _damaged(error: Exception) -> PictureError:
    return PictureError(f"a damaged image ({' '.join(str(error).split())})")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Pillow's warnings about metadata, which say nothing of the picture.

    Python keeps one list of filters for all threads, so that only one of them may change it at a time.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
