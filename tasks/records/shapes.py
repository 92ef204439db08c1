"""The coarse shape of a picture: small, independent of size and contrast, and its low frequencies."""

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tasks.records.pixels import to_gray

Gray = NDArray[np.uint8]
Pictures = NDArray[np.float16]

SIDE = 48
"""Side of a small picture in pixels: enough to distinguish most slices of a volume, few enough to compare in bulk."""
WORKING = 192
"""Longest side, in pixels, of the copy in which frames are detected: four for each pixel of a small picture."""
COARSE = 10
"""Number of frequencies in each direction in the coarse shape: a discrete cosine transform, as in perceptual hashes."""
CHUNK = 512
"""Pictures that are transformed at once."""


def working_copy(data: bytes) -> Gray:
    """Gray levels, at most WORKING pixels a side."""
    gray = to_gray(data, WORKING)  # most of the audit's time is decoding
    scale = WORKING / max(gray.size)
    width, height = (max(1, round(side * scale)) for side in gray.size)
    return np.asarray(gray.resize((width, height), PIL.Image.Resampling.BOX, reducing_gap=2.0))


def small(gray: Gray) -> Pictures | None:
    """Reduce gray levels `(h, w)` to a picture `(SIDE, SIDE)` of zero mean and unit length; None if all are equal."""
    low, high = levels_between(gray, 0.005)
    curve = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1).astype(np.float32)
    picture = PIL.Image.fromarray(curve[gray])
    levels = np.asarray(picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX), np.float64)
    centred = levels - levels.mean()
    length = float(np.linalg.norm(centred))
    return (centred / length).astype(np.float16) if length > 1e-3 else None


def levels_between(gray: Gray, share: float) -> tuple[int, int]:
    """The levels below and above which this share of the pixels lies."""
    below = np.cumsum(np.bincount(gray.ravel(), minlength=256))
    low, high = np.searchsorted(below, (share * gray.size, (1 - share) * gray.size))
    return int(low), int(high)


def coarse(pictures: NDArray[np.float16]) -> NDArray[np.float32]:
    """Coarse shapes, unit rows `(n, COARSE**2 - 1)`: low frequencies of pictures `(n, SIDE, SIDE)`, mean removed."""
    steps = np.arange(SIDE) + 0.5
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(COARSE), steps)).astype(np.float32)
    parts = [waves @ pictures[at : at + CHUNK].astype(np.float32) @ waves.T for at in range(0, len(pictures), CHUNK)]
    rows = np.concatenate(parts).reshape(len(pictures), -1)[:, 1:]
    return np.ascontiguousarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))
