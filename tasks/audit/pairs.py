"""Images that are copies of each other: candidates by nearest coarse shape, each then verified by its detail.

Cost grows about linearly with the number of images: an image has a bounded number of candidates, and in a
large set these are looked for in a few cells of an inverted file.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.audit.align import SMOOTH, agreement, detail, halved
from tasks.audit.fingerprint import SIDE, Fingerprint
from tasks.audit.search import searcher
from tasks.records import ImagePair

Vectors = NDArray[np.float32]

COARSE = 10
"""Frequencies each way that make the coarse shape, of the discrete cosine transform (as perceptual hashes do)."""
CANDIDATES = 8
"""Nearest pictures of each that are verified, in each orientation."""
LIKELY = 0.55
"""Candidates whose coarse shapes correlate less are not verified."""
COPY = 0.84
"""Correlation of detail from which two images are taken for copies; docs/audit.md says how it was chosen."""
TRIED = 10
"""Candidates of an image that are laid over it, those first whose detail agrees most as they lie."""
GLANCE = 0.1
"""Correlation of detail as two pictures lie, below which they are not laid over each other."""
CHUNK = 512
THREADS = 2

FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Upright, mirrored left to right, upside down, and both."""


def image_pairs(prints: Sequence[Fingerprint], pixels: Callable[[set[str]], dict[str, bytes]]) -> list[ImagePair]:
    """All pairs of copies, by id.

    Of several files with the same bytes the first stands for all: each of the others is paired with it alone, and
    chains of pairs join them.

    Args:
        prints: of all images, ids distinct.
        pixels: the pixel digests of the images asked for, which are decoded for it.
    """
    first: dict[bytes, Fingerprint] = {}
    pairs = []
    for each in sorted(prints, key=lambda each: each.image_id):
        known = first.setdefault(each.digest, each)
        if known is not each:
            pairs.append(ImagePair(known.image_id, each.image_id, "identical_bytes", 1.0))
    kept = list(first.values())
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for one, other, flipped, score in _verified(kept):
        key = (min(one, other), max(one, other))
        # An image that equals its own mirror image is a plain copy where both orientations agree.
        best[key] = max(best.get(key, (-1.0, False)), (score, not flipped))
    doubtful = {index for key in best if kept[key[0]].size == kept[key[1]].size for index in key}
    digests = pixels({kept[index].image_id for index in doubtful})
    for (one, other), (score, upright) in best.items():
        names = kept[one].image_id, kept[other].image_id
        same = names[0] in digests and digests[names[0]] == digests.get(names[1])
        relation = "identical_pixels" if same else "near_duplicate" if upright else "flipped"
        pairs.append(ImagePair(*names, relation, 1.0 if same else round(min(score, 1.0), 4)))  # type: ignore[arg-type]
    return sorted(pairs, key=lambda pair: (pair.image_a, pair.image_b))


def _verified(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, bool, float]]:
    """Pairs of positions that are copies, whether flipped, and the correlation of their detail."""
    owner = np.repeat(np.arange(len(prints)), [len(each.pictures) for each in prints])
    if not len(owner):
        return
    pictures = np.concatenate([each.pictures for each in prints])
    glances = np.concatenate([_glances(pictures[at : at + CHUNK]) for at in range(0, len(pictures), CHUNK)])
    meetings = _likeliest(_candidates(coarse(pictures), owner, glances), owner)

    def verify(start: int) -> list[tuple[int, int, bool, float]]:
        part = slice(start, start + CHUNK)
        flip, one, other = meetings.flip[part], meetings.one[part], meetings.other[part]
        turned = pictures[one]
        for number, (down, across) in enumerate(FLIPS):
            turned[flip == number] = turned[flip == number][:, ::down, ::across]
        scores = agreement(turned, pictures[other], COPY)
        return [
            (int(owner[one[place]]), int(owner[other[place]]), bool(flip[place]), float(scores[place]))
            for place in np.flatnonzero(scores >= COPY)
        ]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(verify, range(0, len(meetings.one), CHUNK)):
            yield from found


class Meetings(NamedTuple):
    """Pictures that may show the same, by position, each pair once in each orientation: arrays `(m,)`."""

    flip: NDArray[np.intp]
    """Place in FLIPS of what is done to the first."""
    one: NDArray[np.intp]
    other: NDArray[np.intp]
    alike: Vectors
    """Correlation of detail as they lie."""


def _glances(pictures: NDArray[np.float16]) -> Vectors:
    """What tells most candidates apart before anything is laid over: detail at half the size."""
    return detail(halved(pictures), SMOOTH // 2)


def _candidates(shapes: Vectors, owner: NDArray[np.intp], glances: Vectors) -> Meetings:
    """For each flip, each picture's nearest of other images by coarse shape, as far as their detail agrees at all."""
    search = searcher(shapes)
    signs = np.asarray([1, -1] * (COARSE // 2), np.float32)
    count = min(CANDIDATES + int(np.bincount(owner).max()), len(shapes))
    parts = []
    for number, (down, across) in enumerate(FLIPS):
        # Mirroring a picture changes the sign of its odd frequencies.
        mirror = np.outer(signs if down < 0 else signs**2, signs if across < 0 else signs**2).ravel()[1:]
        near, found = search(np.ascontiguousarray(shapes * mirror), count)
        query = np.repeat(np.arange(len(shapes)), count)
        found, near = found.ravel(), near.ravel()
        kept = (found >= 0) & (near >= LIKELY) & (owner[found] != owner[query])
        # A flip undoes itself, so that a pair is the same both ways.
        pairs = np.unique(np.sort(np.stack([query[kept], found[kept]], 1), 1), axis=0)
        for start in range(0, len(pairs), 8 * CHUNK):
            one, other = pairs[start : start + 8 * CHUNK].T
            alike = np.einsum("nij,nij->n", glances[one][:, ::down, ::across], glances[other])
            seen = alike >= GLANCE
            parts.append(Meetings(np.full(int(seen.sum()), number), one[seen], other[seen], alike[seen]))
    none = np.zeros(0, np.intp)
    parts = parts or [Meetings(none, none, none, np.zeros(0, np.float32))]
    flips, ones, others, alike = zip(*parts, strict=True)
    return Meetings(np.concatenate(flips), np.concatenate(ones), np.concatenate(others), np.concatenate(alike))


def _likeliest(meetings: Meetings, owner: NDArray[np.intp]) -> Meetings:
    """The meetings that are among the TRIED most alike of one of their images."""
    kept = np.zeros(len(meetings.one), bool)
    for side in (meetings.one, meetings.other):
        order = np.lexsort((-meetings.alike, owner[side]))
        owners = owner[side][order]
        first = np.searchsorted(owners, owners)  # where each image's meetings begin
        kept[order] |= np.arange(len(order)) - first < TRIED
    return Meetings(meetings.flip[kept], meetings.one[kept], meetings.other[kept], meetings.alike[kept])


def coarse(pictures: NDArray[np.float16]) -> Vectors:
    """Unit rows `(n, COARSE**2 - 1)`: the low frequencies of pictures `(n, SIDE, SIDE)`, without their mean."""
    steps = np.arange(SIDE) + 0.5
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(COARSE), steps)).astype(np.float32)
    parts = [waves @ pictures[at : at + CHUNK].astype(np.float32) @ waves.T for at in range(0, len(pictures), CHUNK)]
    rows = np.concatenate(parts).reshape(len(pictures), -1)[:, 1:]
    return np.ascontiguousarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))


def whole_shapes(prints: Sequence[Fingerprint]) -> dict[str, Vectors]:
    """The coarse shape of each whole image, by id: a unit row; blank images have none."""
    seen = [each for each in prints if len(each.pictures)]
    if not seen:
        return {}
    shapes = coarse(np.stack([each.pictures[0] for each in seen]))
    return {each.image_id: row for each, row in zip(seen, shapes, strict=True)}
