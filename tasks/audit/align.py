"""Similarity of two small pictures, after one is aligned with the other and given its contrast.

Gauss-Newton steps on the squared difference (Lucas and Kanade 1981) find the alignment: two scales and two shifts.
Levels are then matched by rank, which undoes any monotonic change of contrast. Only detail is compared in the end, as
medical images of one kind share their coarse shape.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]
AnyPictures = NDArray[np.floating[Any]]

STEPS = 6
REACH = (0.2, 0.2, 6.0, 6.0)
"""Limits of an alignment: scales change by at most this share, shifts by at most this many pixels."""
SMOOTH = 9
"""Side, in pixels, of the window whose mean is subtracted from each pixel."""
QUIET = 0.5
"""Share of the whole picture's deviation that is added to each local one, so that noise in dark areas stays small."""
MARGIN = 0.15
"""Largest gain in correlation that the full-size alignment is expected to add to that at half the size."""


def agreement(first: AnyPictures, second: AnyPictures, least: float) -> Pictures:
    """Correlation of detail `(n,)`, from -1 to 1, of pairs of small pictures `(n, side, side)`.

    Alignment may fail in one direction only, so the better of both directions counts. Pairs are aligned at half the
    size first; a pair that is then unlikely to reach `least` gets -1.
    """
    return np.maximum(_one_way(first, second, least), _one_way(second, first, least))


def _one_way(first: AnyPictures, second: AnyPictures, least: float) -> Pictures:
    scores = np.full(len(first), -1, np.float32)
    near, far = halved(first), halved(second)
    places = _places(near, far, np.zeros((len(first), 4), np.float32))
    alike = (detail(near, SMOOTH // 2) * detail(_warp(far, places), SMOOTH // 2)).sum((1, 2))
    left = np.flatnonzero(alike >= least - MARGIN)
    mine, other = first[left].astype(np.float32), second[left].astype(np.float32)
    doubled = np.asarray((1, 1, 2, 2), np.float32)  # shifts are in pixels
    laid = _match(_warp(other, _places(mine, other, places[left] * doubled)), mine)
    scores[left] = (detail(mine, SMOOTH) * detail(laid, SMOOTH)).sum((1, 2))
    return scores


def halved(pictures: AnyPictures) -> Pictures:
    """Halve the side of pictures: `(n, side / 2, side / 2)`, of unit length."""
    count, side, _ = pictures.shape
    return _unit(pictures.astype(np.float32).reshape(count, side // 2, 2, side // 2, 2).mean((2, 4)))


def detail(pictures: Pictures, size: int) -> Pictures:
    """Subtract the local mean over about `size` pixels, divide by the local deviation, and scale to unit length.

    Without that division a skull's bright rim outweighs everything inside it, and all heads look alike.
    """
    from scipy.ndimage import uniform_filter

    window = (0, size | 1, size | 1)
    rough = pictures - uniform_filter(pictures, size=window)
    local = np.sqrt(uniform_filter(rough**2, size=window).clip(0))
    return _unit(rough / (local + QUIET * np.sqrt((rough**2).mean((1, 2), keepdims=True)) + 1e-9))


def _places(first: Pictures, second: Pictures, places: Pictures) -> Pictures:
    """Find how to move and scale the second pictures onto the first: `(n, 4)` as in REACH, from a first guess."""
    count, side, _ = first.shape
    grid = (np.arange(side) - (side - 1) / 2).astype(np.float32)
    down, across = np.gradient(first, axis=1), np.gradient(first, axis=2)
    slopes = np.stack([down * grid[:, None], across * grid, down, across], -1).reshape(count, side * side, 4)
    turned = slopes.transpose(0, 2, 1)
    solve = np.linalg.inv(turned @ slopes + 1e-6 * np.eye(4, dtype=np.float32)) @ turned
    reach = np.asarray(REACH, np.float32)
    for _ in range(STEPS):
        difference = (_unit(_warp(second, places)) - first).reshape(count, side * side, 1)
        places = np.clip(places - (solve @ difference)[..., 0], -reach, reach)
    return places


def _warp(pictures: Pictures, places: Pictures) -> Pictures:
    """Resample pictures at scaled and shifted rows and columns, bilinearly: places `(n, 4)` as in REACH."""
    side = pictures.shape[1]
    centre = (side - 1) / 2
    grid = (np.arange(side) - centre).astype(np.float32)
    for axis in (1, 2):
        at = np.clip((1 + places[:, axis - 1, None]) * grid + places[:, axis + 1, None] + centre, 0, side - 1.001)
        low = at.astype(np.intp)
        part = (at - low).astype(np.float32)
        if axis == 1:
            rows = np.arange(len(pictures))[:, None]
            pictures = pictures[rows, low] * (1 - part[:, :, None]) + pictures[rows, low + 1] * part[:, :, None]
        else:
            here = np.broadcast_to(low[:, None], pictures.shape)
            left, right = np.take_along_axis(pictures, here, 2), np.take_along_axis(pictures, here + 1, 2)
            pictures = left * (1 - part[:, None]) + right * part[:, None]
    return pictures


def _match(pictures: Pictures, levels: Pictures) -> Pictures:
    """Give pictures the levels of others, rank by rank."""
    count = len(pictures)
    flat, ordered = (each.reshape(count, pictures.shape[1] ** 2) for each in (pictures, levels))
    matched = np.empty_like(flat)
    np.put_along_axis(matched, np.argsort(flat, axis=1), np.sort(ordered, axis=1), 1)
    return matched.reshape(pictures.shape)


def _unit(pictures: Pictures) -> Pictures:
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    return centred / np.maximum(np.sqrt((centred**2).sum((1, 2), keepdims=True)), 1e-6)
