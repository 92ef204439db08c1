"""Image fingerprints for finding copies: small pictures, independent of size, frame and contrast."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tasks.records import Image
from tasks.records.pixels import pixel_levels, to_gray

Gray = NDArray[np.uint8]
Pictures = NDArray[np.float16]

SIDE = 48
"""Side of a small picture in pixels: enough to distinguish most slices of a volume, few enough to compare in bulk."""
WORKING = 192
"""Longest side, in pixels, of the copy in which frames are detected: four for each pixel of a small picture."""
FRAME = 0.03
"""An outer frame has one level: all but 2 % of a row lie within this share of the image's range around it."""
FLAT = 0.06
"""Background is flat: without 2 % at both ends, the levels of a row span at most this share of the image's range."""
CROP = 0.06
"""Share of each side that one view leaves out: a copy with cropped margins is closer to that view than to the whole."""
CONTENT = 0.25
"""Smallest share of a side that trimming leaves, so that a nearly blank image is not emptied."""


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of one image."""

    image_id: str
    digest: bytes
    """sha256 of the file."""
    size: tuple[int, int]
    """Width and height in pixels."""
    pictures: Pictures
    """`(v, SIDE, SIDE)`, each of zero mean and unit length: the whole image, without its outer frame, without flat
    background, and cropped. Views of the same shape as an earlier one are left out; a blank image has none."""


def fingerprints(images: Iterable[Image], threads: int = 2) -> Iterator[Fingerprint]:
    """Compute the fingerprint of each image, in order, with a bounded number of images in memory.

    Raises PictureError for a file that is no image; ingest has decoded each file before.
    """
    waiting = iter(images)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, 64 * threads)):
            yield from pool.map(fingerprint, batch)


def fingerprint(image: Image) -> Fingerprint:
    """The fingerprint of one image."""
    gray = _working_copy(image.data)
    views = [gray, unframed(gray), trim(gray), _cropped(gray)]
    distinct = [view for place, view in enumerate(views) if all(view.shape != other.shape for other in views[:place])]
    pictures = [picture for view in distinct if (picture := small(view)) is not None]
    stacked = np.stack(pictures) if pictures else np.zeros((0, SIDE, SIDE), np.float16)
    return Fingerprint(image.id, hashlib.sha256(image.data).digest(), (image.width, image.height), stacked)


def pixel_digest(data: bytes) -> bytes:
    """sha256 of the decoded pixels, their shape and their type: equal for files with identical pixels.

    Gray of more than 8 bits is hashed before scaling: an image and one with doubled values are near-duplicates, not
    identical.
    """
    levels = pixel_levels(data)
    return hashlib.sha256(repr((levels.shape, str(levels.dtype))).encode() + levels.tobytes()).digest()


def _working_copy(data: bytes) -> Gray:
    """Gray levels, at most WORKING pixels a side."""
    gray = to_gray(data, WORKING)  # most of the audit's time is decoding
    scale = WORKING / max(gray.size)
    width, height = (max(1, round(side * scale)) for side in gray.size)
    return np.asarray(gray.resize((width, height), PIL.Image.Resampling.BOX, reducing_gap=2.0))


def unframed(gray: Gray) -> Gray:
    """Remove the frame of one level that each edge of an image `(h, w)` may have."""
    tolerance = max(FRAME * _range(gray), 3.0)
    sides = []
    for turned in (gray, gray.T):
        first, last = _outer(turned, tolerance), _outer(turned[::-1], tolerance)
        sides.append((first, len(turned) - last))
    (top, bottom), (left, right) = sides
    inside = gray[top:bottom, left:right]
    return inside if _is_content(inside, gray) else gray


def trim(gray: Gray) -> Gray:
    """Remove flat rows and columns at the edges of an image `(h, w)`, whatever their levels."""
    # A frame of another level widens the range and would hide the content of a dark image.
    gray = unframed(gray)
    while True:
        most = max(FLAT * _range(gray), 3.0)
        top, bottom = _content(_spans(gray, 1) > most)
        left, right = _content(_spans(gray[top:bottom], 0) > most) if bottom > top else (0, 0)
        inside = gray[top:bottom, left:right]
        if inside.shape == gray.shape or not _is_content(inside, gray):
            return gray
        gray = inside


def _cropped(gray: Gray) -> Gray:
    height, width = gray.shape
    down, across = round(CROP * height), round(CROP * width)
    return gray[down : height - down, across : width - across]


def _is_content(inside: Gray, gray: Gray) -> bool:
    return all(part >= max(4, CONTENT * side) for part, side in zip(inside.shape, gray.shape, strict=True))


def _range(gray: Gray) -> int:
    low, high = _levels(gray, 0.01)
    return high - low


def _levels(gray: Gray, share: float) -> tuple[int, int]:
    """The levels below and above which this share of the pixels lies."""
    below = np.cumsum(np.bincount(gray.ravel(), minlength=256))
    low, high = np.searchsorted(below, (share * gray.size, (1 - share) * gray.size))
    return int(low), int(high)


def _outer(gray: Gray, tolerance: float) -> int:
    """Number of rows from the edge that have the level of the first row."""
    off = (np.abs(gray - np.median(gray[0]).astype(np.int16)) > tolerance).mean(1) > 0.02
    return int(off.argmax()) if off.any() else 0


def _spans(gray: Gray, axis: int) -> NDArray[np.int16]:
    """The range of levels in each row (axis 1) or column (axis 0), without 2 % at both ends."""
    ordered = np.sort(gray if axis else gray.T, 1).astype(np.int16)  # rows, for speed
    cut = ordered.shape[1] // 50
    return ordered[:, -1 - cut] - ordered[:, cut]


def _content(kept: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and end (exclusive) of the places that are kept; (0, 0) where there are none."""
    places = np.flatnonzero(kept)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def small(gray: Gray) -> Pictures | None:
    """Reduce gray levels `(h, w)` to a picture `(SIDE, SIDE)` of zero mean and unit length; None if all are equal."""
    low, high = _levels(gray, 0.005)
    curve = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1).astype(np.float32)
    picture = PIL.Image.fromarray(curve[gray])
    levels = np.asarray(picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX), np.float64)
    centred = levels - levels.mean()
    length = float(np.linalg.norm(centred))
    return (centred / length).astype(np.float16) if length > 1e-3 else None
