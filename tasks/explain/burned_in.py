"""Finds text that scanners burn into an image's pixels: names, sides, settings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BRIGHT = 0.7
"""Least brightness of a letter, as a share of the full range: scanners write in white, or in one plain colour."""
SMALLEST, TALLEST = 5, 0.08
"""Height of a letter: at least this many pixels, at most this share of the image's height."""
LETTERS = 3
"""Fewest letters in a line."""

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the right and lower edges are exclusive."""


@dataclass(frozen=True)
class _Shape:
    left: int
    upper: int
    right: int
    lower: int

    @property
    def height(self) -> int:
        return self.lower - self.upper

    def follows(self, other: "_Shape") -> bool:
        """Whether this may be the next letter after the other: of similar height, on the same base line, and close."""
        tall = max(self.height, other.height)
        near = -0.5 * tall <= self.left - other.right <= 1.2 * tall
        return near and abs(self.lower - other.lower) <= 0.2 * tall and min(self.height, other.height) >= 0.65 * tall


def text_boxes(pixels: NDArray[np.uint8]) -> list[Box]:
    """Find lines of text in an image: at least three bright shapes of similar size on one base line.

    It finds most, not all, print of about seven pixels or more. It may mistake a row of small bright spots for text. It
    does not look for dark print.

    Args:
        pixels: `(height, width, 3)`.
    """
    labels, _ = ndimage.label(pixels.max(2) >= BRIGHT * 255, np.ones((3, 3)))
    most = TALLEST * len(pixels)
    shapes = [
        _Shape(columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(labels)
        if SMALLEST <= rows.stop - rows.start <= most and columns.stop - columns.start <= 2 * (rows.stop - rows.start)
    ]
    lines: list[list[_Shape]] = []
    for shape in sorted(shapes, key=lambda each: each.left):
        line = next((each for each in lines if any(map(shape.follows, each))), None)
        if line is None:
            lines.append([shape])
        else:
            line.append(shape)
    return [_around(line) for line in lines if len(line) >= LETTERS]


def _around(line: list[_Shape]) -> Box:
    edges = np.array([(each.left, each.upper, each.right, each.lower) for each in line])
    return (*edges[:, :2].min(0).tolist(), *edges[:, 2:].max(0).tolist())
