"""Image fingerprints for finding copies: small pictures, independent of size, frame and contrast."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tasks.records import Image
from tasks.records.shapes import SIDE, Gray, Pictures, levels_between, small, working_copy

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
    gray = working_copy(image.data)
    views = [gray, unframed(gray), trim(gray), _cropped(gray)]
    distinct = [view for place, view in enumerate(views) if all(view.shape != other.shape for other in views[:place])]
    pictures = [picture for view in distinct if (picture := small(view)) is not None]
    stacked = np.stack(pictures) if pictures else np.zeros((0, SIDE, SIDE), np.float16)
    return Fingerprint(image.id, hashlib.sha256(image.data).digest(), (image.width, image.height), stacked)


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
    low, high = levels_between(gray, 0.01)
    return high - low


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
