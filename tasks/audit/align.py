"""How alike two small pictures are, once one is laid over the other and given its contrast.

The overlay is found by Gauss-Newton steps on the squared difference (Lucas and Kanade 1981), over two scales and two
shifts. Levels are then matched by rank, which undoes any rising curve of contrast. What is compared in the end is
detail alone: medical images of one kind share their coarse shape.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]
AnyPictures = NDArray[np.floating[Any]]

STEPS = 6
REACH = (0.2, 0.2, 6.0, 6.0)
"""Most that an overlay changes: scales by this share, shifts by this many pixels."""
SMOOTH = 9
"""Pixels a side of the mean that is taken off each pixel."""
QUIET = 0.5
"""Deviation, as a share of the whole picture's, that is added to each place's: noise in the dark stays small."""
MARGIN = 0.15
"""What laying over in full may add to the correlation found at half the size."""


def agreement(first: AnyPictures, second: AnyPictures, least: float) -> Pictures:
    """Correlation of detail `(n,)`, from -1 to 1, of pairs of small pictures `(n, side, side)`.

    Laying one over the other may go astray where the reverse does not: the better of both counts. They are laid over
    each other at half the size first; a pair for which that makes `least` unlikely has -1.
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
    """Pictures of half the side, `(n, side / 2, side / 2)`, of unit length."""
    count, side, _ = pictures.shape
    return _unit(pictures.astype(np.float32).reshape(count, side // 2, 2, side // 2, 2).mean((2, 4)))


def detail(pictures: Pictures, size: int) -> Pictures:
    """Pictures less the mean of about `size` pixels around each, in units of their deviation; of unit length.

    Without that division a skull's bright rim outweighs everything within it, and heads all look alike.
    """
    from scipy.ndimage import uniform_filter

    window = (0, size | 1, size | 1)
    rough = pictures - uniform_filter(pictures, size=window)
    local = np.sqrt(uniform_filter(rough**2, size=window).clip(0))
    return _unit(rough / (local + QUIET * np.sqrt((rough**2).mean((1, 2), keepdims=True)) + 1e-9))


def _places(first: Pictures, second: Pictures, places: Pictures) -> Pictures:
    """How the second pictures are moved and scaled onto the first: places `(n, 4)` as in REACH, from a first guess."""
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
    """Pictures read at scaled and shifted rows and columns, bilinear: places `(n, 4)` as in REACH."""
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
    """Pictures whose levels, rank by rank, are those of others."""
    count = len(pictures)
    flat, ordered = (each.reshape(count, pictures.shape[1] ** 2) for each in (pictures, levels))
    matched = np.empty_like(flat)
    np.put_along_axis(matched, np.argsort(flat, axis=1), np.sort(ordered, axis=1), 1)
    return matched.reshape(pictures.shape)


def _unit(pictures: Pictures) -> Pictures:
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    return centred / np.maximum(np.sqrt((centred**2).sum((1, 2), keepdims=True)), 1e-6)
