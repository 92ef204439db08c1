"""Safe reading of image files: the bytes stay as published, and are decoded once to check that the image is whole.

Only the pixels of a DICOM file are kept, as a PNG.
"""

import re
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from tasks.ingest.dicom import DicomError, is_dicom, to_png
from tasks.ingest.finding import FindingError, problem
from tasks.records.pixels import PictureError, opened, rgb_of

MAX_PIXELS = 80_000_000
"""The largest image accepted. Radiographs and mammograms have up to 30 million pixels; Pillow itself warns from 89."""
MAX_ASPECT = 200
"""Largest ratio of the sides: beyond it, Qwen2-VL's processor refuses an image."""


class Picture(NamedTuple):
    """An image that was decoded once, in its published mode (RGB, grayscale, CMYK, 16 bits)."""

    data: bytes
    """As published; for a DICOM file, the PNG of its pixels."""
    width: int
    """In pixels of the upright picture, as is the height."""
    height: int


def read_image(source: Path | bytes, where: str) -> Picture:
    """Read an image from its file or its bytes.

    Args:
        source: the file, or the bytes where a row holds them.
        where: the file and row that named the image, for the message.

    Raises StudyError where the image is missing, damaged, not an image, larger than MAX_PIXELS (checked in the header,
    so that nothing of that size is decoded) or has sides whose ratio exceeds MAX_ASPECT.
    """
    if isinstance(source, bytes):
        return _picture(source, where)
    where = f"{where}, image {source}"
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise _unfit(where, "no such file") from None
    except OSError as error:
        raise _unfit(where, f"an unreadable file ({error.strerror})") from None
    return _picture(data, where)


def _picture(data: bytes, where: str) -> Picture:
    if is_dicom(data):
        try:
            data = to_png(data, MAX_PIXELS)
        except DicomError as error:
            raise problem(where, "a whole DICOM image", str(error), f"{error.remedy} or remove its rows") from None
    return Picture(data, *_decode(data, where))


def _decode(data: bytes, where: str) -> tuple[int, int]:
    """Width and height of the picture, after all pixels were decoded in the same way as later steps decode them."""
    try:
        image = opened(data)
        _refuse_shape(*image.size, where)
        return rgb_of(image).size
    except PIL.Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))  # Pillow gives the size only in its message
        raise _too_large(where, f"{int(count[0]):,}" if count else "many more") from None
    except PictureError as error:
        raise problem(where, "a whole image", str(error), f"{error.remedy} or remove its rows") from None


def _refuse_shape(width: int, height: int, where: str) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width:,} x {height:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        expected = f"sides that differ by at most a factor of {MAX_ASPECT}"
        raise problem(where, expected, f"{width:,} x {height:,} pixels", "crop the image or remove its rows")


def _unfit(where: str, found: str) -> FindingError:
    return problem(where, "a whole image", found, "restore the file as published or remove its rows")


def _too_large(where: str, found: str) -> FindingError:
    return problem(
        where, f"an image of at most {MAX_PIXELS:,} pixels", f"{found} pixels", "scale it down or remove its rows"
    )
