"""Decodes image files into pictures, in one place for all code that looks at images.

Engine, encoders, audit, maps and pages all use the result of `to_rgb`: 8-bit RGB, as a viewer shows the file.

- If there are several frames or pages, the first is used.
- The picture is upright: the EXIF orientation is applied.
- Transparent areas show a white background, as on a page.
- Gray of more than 8 bits (16-bit, 32-bit, float) is scaled from its range to 0 to 255. Values that are not finite do
  not count in that range: NaN and minus infinity are black, infinity is white.
- 16-bit colours keep their upper 8 bits. Colour profiles (ICC) are not applied.
- 1-bit, palette, CMYK and YCbCr images are converted to RGB by Pillow. LAB and HSV are refused.
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
"""Formats that Pillow decodes itself; others, such as EPS, would start external programs."""
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", *DEEP)
"""Pillow's modes that can be converted to RGB."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""The TIFF tag of the photometric interpretation, and its value if low levels are bright."""
BITS, SAMPLE_FORMAT, UNSIGNED = 258, 339, (1,)
"""The TIFF tags of bits per sample and of the sample format, and the format's value for unsigned integers."""

_one_at_a_time = threading.Lock()


class PictureError(ValueError):
    """Bytes that are no readable picture: what was found, for a message, and a remedy."""

    def __init__(self, found: str, remedy: str = "restore the file as published") -> None:
        super().__init__(found)
        self.remedy = remedy


def to_rgb(data: bytes) -> PIL.Image.Image:
    """Decode an image file into a picture of mode RGB, by the rules at the top of this module.

    Raises what `opened` raises, and PictureError if the image is damaged.
    """
    return rgb_of(opened(data))


def opened(data: bytes) -> PIL.Image.Image:
    """Open an image file and read only its header; the size is as stored, before the EXIF orientation is applied.

    Raises PictureError if the bytes are no image, or in colours that cannot be converted. Raises Pillow's
    DecompressionBombError if the header states too many pixels.
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
    """As `to_rgb`, for an image returned by `opened`."""
    _decode(image)
    try:
        picture = PIL.Image.fromarray(scaled(_levels(image))) if image.mode in DEEP else _flat(image)
        plain = picture.convert("RGB")
    except OURS:
        raise
    except Exception as error:
        raise _damaged(error) from None
    plain.info = {}  # so that saved copies, as in a page, hold only pixels and none of the file's comments
    return plain


def to_gray(data: bytes, near: int) -> PIL.Image.Image:
    """The same picture in gray, of mode L; a large JPEG is decoded at a smaller size, both sides at least `near`.

    Raises what `to_rgb` raises.
    """
    image = opened(data)
    image.draft("L", (near, near))
    if image.mode != "L" or image.has_transparency_data:
        return rgb_of(image).convert("L")
    _decode(image)
    return image


def pixel_levels(data: bytes) -> NDArray[np.float64] | NDArray[np.uint8]:
    """Pixels to compare two files for identity: those of `to_rgb`, `(h, w, 3)`, or unscaled deep gray, `(h, w)`.

    Raises what `to_rgb` raises.
    """
    image = opened(data)
    if image.mode not in DEEP:
        return np.asarray(rgb_of(image))
    _decode(image)
    return _levels(image)


def pixel_digest(data: bytes) -> bytes:
    """sha256 of the decoded pixels, their shape and their type: equal for files with identical pixels.

    Gray of more than 8 bits is hashed before scaling: an image and one with doubled values are near-duplicates, not
    identical.
    """
    levels = pixel_levels(data)
    return hashlib.sha256(repr((levels.shape, str(levels.dtype))).encode() + levels.tobytes()).digest()


def picture_digest(image: PIL.Image.Image) -> str:
    """A digest of a picture's size and pixels; expects a picture from `to_rgb`."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def scaled(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Scale levels `(h, w)` to 0 (the least) to 255 (the largest); all 0 if all levels are equal."""
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
        return  # the EXIF data cannot be read; every viewer shows such an image as it is stored


def _levels(image: PIL.Image.Image) -> NDArray[np.float64]:
    """Deep gray `(h, w)` in the file's unit, with low values dark."""
    values = np.asarray(image, dtype=np.float64)
    transparent = image.info.get("transparency")
    if transparent is not None:
        values = np.where(values == transparent, np.inf, values)  # shown white
    tags = getattr(image, "tag_v2", {})
    if tags.get(BITS) == (32,) and tags.get(SAMPLE_FORMAT, UNSIGNED) == UNSIGNED:
        values = values % 2**32  # Pillow lacks unsigned 32-bit, and reads the upper half as negative
    # Pillow inverts 8-bit levels itself, but not deeper ones.
    return -values if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else values


def _flat(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image on a white background."""
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
    """Silence Pillow's warnings about metadata, which do not concern the picture.

    Python has one list of warning filters for all threads, so only one thread at a time may change it.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
