"""A short hash of how an image looks, equal for most copies in another size, format or brightness (pHash, Zauner 2010).

Where whole images can be compared, `tasks.audit.pairs` finds far more copies.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import PIL.Image
from scipy.fft import dctn

from tasks.records.shapes import levels_between, working_copy

SIDE, LOW = 32, 8
"""The image is scaled to `SIDE` x `SIDE`; its `LOW` x `LOW` lowest frequencies but the mean are kept, a bit each."""
UNSURE = 6
"""Bits nearest to turning over, which may be others in a copy."""
BLANK = 8
"""Fewest levels between an image's darkest and lightest per cent; one with fewer looks like any other such one."""


@dataclass(frozen=True)
class Look:
    """The hash of one image, and those that a copy of it may have."""

    bits: bytes
    """8 bytes."""
    likely: tuple[bytes, ...]
    """`bits`, and each with some of its `UNSURE` bits turned over."""


def look(data: bytes) -> Look | None:
    """How an image file looks; None if it is blank. Raises PictureError if it is no image."""
    gray = working_copy(data)
    low, high = levels_between(gray, 0.01)
    if high - low < BLANK:
        return None
    small = PIL.Image.fromarray(gray).resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    waves = dctn(np.asarray(small, np.float64), norm="ortho")[:LOW, :LOW].ravel()[1:]
    above = waves - np.median(waves)
    bits = sum(1 << place for place in range(len(above)) if above[place] > 0)
    unsure = [1 << int(place) for place in np.argsort(np.abs(above), kind="stable")[:UNSURE]]
    turned = [sum(some) for count in range(UNSURE + 1) for some in combinations(unsure, count)]
    return Look(_bytes(bits), tuple(_bytes(bits ^ other) for other in turned))


def _bytes(bits: int) -> bytes:
    return bits.to_bytes(LOW * LOW // 8, "big")
