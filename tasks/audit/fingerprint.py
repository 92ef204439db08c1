"""What is kept of an image to recognise its copies: small pictures of it, freed of size, frame and contrast."""

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
"""Pixels of a small picture's side: enough to tell most slices of a volume apart, few enough to compare in bulk."""
WORKING = 192
"""Pixels of the longest side that frames are looked for in: four for each that is kept."""
FRAME = 0.03
"""Outer frames are of one level: all but 2 % of a row lie within this share of the image's range around it."""
FLAT = 0.06
"""Background is flat: the levels of a row, but for 2 % at both ends, span at most this share of the image's range."""
CROP = 0.06
"""Share of each side that is left out of one view: a copy whose margins were cropped lies closer to it than to all."""
CONTENT = 0.25
"""What is left of a side after trimming is at least this share of it: a nearly blank image is not emptied."""


@dataclass(frozen=True)
class Fingerprint:
    """One image as it is compared."""

    image_id: str
    digest: bytes
    """sha256 of the file."""
    size: tuple[int, int]
    """Width and height in pixels."""
    pictures: Pictures
    """`(v, SIDE, SIDE)`, each of zero mean and unit length: the whole image, the image without its outer frame,
    without any flat background around what it shows, and cropped; each where it differs. None for a blank image."""


def fingerprints(images: Iterable[Image], threads: int = 2) -> Iterator[Fingerprint]:
    """The fingerprint of each image, in order; a bounded number of images is in memory at a time.

    Raises PictureError for a file that shows no picture: ingest has decoded each file once.
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
    """sha256 of the decoded pixels with their number: equal for files that hold the very same picture.

    Deep gray is taken before it is scaled: an image and its double are near-duplicates, not identical.
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
    """An image `(h, w)` without the frame of one level that each of its edges may have."""
    tolerance = max(FRAME * _range(gray), 3.0)
    sides = []
    for turned in (gray, gray.T):
        first, last = _outer(turned, tolerance), _outer(turned[::-1], tolerance)
        sides.append((first, len(turned) - last))
    (top, bottom), (left, right) = sides
    inside = gray[top:bottom, left:right]
    return inside if _is_content(inside, gray) else gray


def trim(gray: Gray) -> Gray:
    """The part of an image `(h, w)` that shows something: flat rows and columns go, whatever their levels."""
    # A frame of another level widens the range, and would hide a dark image's own content.
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
    """The levels below and above which lie this share of the pixels."""
    below = np.cumsum(np.bincount(gray.ravel(), minlength=256))
    low, high = np.searchsorted(below, (share * gray.size, (1 - share) * gray.size))
    return int(low), int(high)


def _outer(gray: Gray, tolerance: float) -> int:
    """How many of the first rows are of the first one's level."""
    off = (np.abs(gray - np.median(gray[0]).astype(np.int16)) > tolerance).mean(1) > 0.02
    return int(off.argmax()) if off.any() else 0


def _spans(gray: Gray, axis: int) -> NDArray[np.int16]:
    """How far the levels of each row (axis 1) or column (axis 0) lie apart, but for 2 % at both ends."""
    ordered = np.sort(gray if axis else gray.T, 1).astype(np.int16)  # rows, for speed
    cut = ordered.shape[1] // 50
    return ordered[:, -1 - cut] - ordered[:, cut]


def _content(kept: NDArray[np.bool_]) -> tuple[int, int]:
    """From the first to behind the last place that is kept; nothing where none is."""
    places = np.flatnonzero(kept)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def small(gray: Gray) -> Pictures | None:
    """Gray levels `(h, w)` as a small picture `(SIDE, SIDE)` of zero mean and unit length; None where all are equal."""
    low, high = _levels(gray, 0.005)
    curve = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1).astype(np.float32)
    picture = PIL.Image.fromarray(curve[gray])
    levels = np.asarray(picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX), np.float64)
    centred = levels - levels.mean()
    length = float(np.linalg.norm(centred))
    return (centred / length).astype(np.float16) if length > 1e-3 else None
