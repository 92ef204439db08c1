"""Finds images that are copies of each other: nearest coarse shapes give candidates, and detail verifies each.

The cost grows about linearly with the number of images: each image has a bounded number of candidates, and large sets
are searched in a few cells of an inverted file.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.audit.align import SMOOTH, agreement, detail, halved
from tasks.audit.fingerprint import Fingerprint
from tasks.audit.search import searcher
from tasks.records import ImagePair
from tasks.records.shapes import COARSE, coarse

Vectors = NDArray[np.float32]

CANDIDATES = 8
"""Nearest pictures of each picture that become candidates, in each orientation."""
LIKELY = 0.55
"""Least correlation of coarse shapes of a candidate."""
COPY = 0.84
"""Least correlation of detail of two copies; docs/audit.md says how it was chosen."""
TRIED = 10
"""Candidates of an image that are aligned with it: those whose detail agrees most before alignment."""
GLANCE = 0.1
"""Least correlation of detail before alignment; pairs below it are not aligned."""
CHUNK = 512
THREADS = 2

FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Upright, mirrored left to right, upside down, and both."""


def image_pairs(
    prints: Sequence[Fingerprint],
    pixels: Callable[[set[str]], dict[str, bytes]],
    among: Collection[str] | None = None,
) -> list[ImagePair]:
    """Find all pairs of copies, sorted by id.

    Of several files with the same bytes, the first represents all: each of the others is paired with it only, and
    chains of pairs join them.

    Args:
        prints: of all images, with distinct ids.
        pixels: returns the pixel digests of the given images, which it decodes.
        among: ids of images; only pairs with one of them are found, at a fraction of the cost. None: all pairs.
    """
    first: dict[bytes, Fingerprint] = {}
    pairs = []
    for each in sorted(prints, key=lambda each: each.image_id):
        known = first.setdefault(each.digest, each)
        if known is not each:
            pairs.append(ImagePair(known.image_id, each.image_id, "identical_bytes", 1.0))
    kept = list(first.values())
    asked = np.asarray([among is None or each.image_id in among for each in kept], bool)
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for one, other, flipped, score in _verified(kept, asked):
        key = (min(one, other), max(one, other))
        # Where both orientations agree, as for a symmetric image, the pair is an upright copy.
        best[key] = max(best.get(key, (-1.0, False)), (score, not flipped))
    doubtful = {index for key in best if kept[key[0]].size == kept[key[1]].size for index in key}
    digests = pixels({kept[index].image_id for index in doubtful})
    for (one, other), (score, upright) in best.items():
        names = kept[one].image_id, kept[other].image_id
        same = names[0] in digests and digests[names[0]] == digests.get(names[1])
        relation = "identical_pixels" if same else "near_duplicate" if upright else "flipped"
        pairs.append(ImagePair(*names, relation, 1.0 if same else round(min(score, 1.0), 4)))  # type: ignore[arg-type]
    found = [pair for pair in pairs if among is None or pair.image_a in among or pair.image_b in among]
    return sorted(found, key=lambda pair: (pair.image_a, pair.image_b))


def _verified(prints: Sequence[Fingerprint], asked: NDArray[np.bool_]) -> Iterator[tuple[int, int, bool, float]]:
    """Pairs of copies by position, of which one is asked for: whether one is flipped, and their detail's correlation.

    `asked` `(n,)` says of each image whether its pairs are asked for.
    """
    owner = np.repeat(np.arange(len(prints)), [len(each.pictures) for each in prints])
    if not len(owner):
        return
    pictures = np.concatenate([each.pictures for each in prints])
    glances = np.concatenate([_glances(pictures[at : at + CHUNK]) for at in range(0, len(pictures), CHUNK)])
    meetings = _likeliest(_candidates(coarse(pictures), owner, glances), owner)
    # Only now: what is not asked for competes for the candidates' places all the same.
    meetings = meetings.where(asked[owner[meetings.one]] | asked[owner[meetings.other]])

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
    """Candidate pairs of pictures, by position, each once in each orientation: arrays `(m,)`."""

    flip: NDArray[np.intp]
    """Index in FLIPS of the flip of the first picture."""
    one: NDArray[np.intp]
    other: NDArray[np.intp]
    alike: Vectors
    """Correlation of detail before alignment."""

    def where(self, kept: NDArray[np.bool_]) -> "Meetings":
        """Those at which `kept` `(m,)` is true."""
        return Meetings(self.flip[kept], self.one[kept], self.other[kept], self.alike[kept])


def _glances(pictures: NDArray[np.float16]) -> Vectors:
    """Detail at half the size, which rules out most candidates before any alignment."""
    return detail(halved(pictures), SMOOTH // 2)


def _candidates(shapes: Vectors, owner: NDArray[np.intp], glances: Vectors) -> Meetings:
    """For each flip, each picture's nearest pictures of other images by coarse shape, if their detail correlates at
    all."""
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
        # A flip is its own inverse, so the order of a pair does not matter.
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
    """The candidate pairs that are among the TRIED most similar ones of one of their images."""
    kept = np.zeros(len(meetings.one), bool)
    for side in (meetings.one, meetings.other):
        order = np.lexsort((-meetings.alike, owner[side]))
        owners = owner[side][order]
        first = np.searchsorted(owners, owners)  # where each image's candidate pairs begin
        kept[order] |= np.arange(len(order)) - first < TRIED
    return meetings.where(kept)


def whole_shapes(prints: Sequence[Fingerprint]) -> dict[str, Vectors]:
    """The coarse shape of each whole image, by id: a unit row; blank images have none."""
    seen = [each for each in prints if len(each.pictures)]
    if not seen:
        return {}
    shapes = coarse(np.stack([each.pictures[0] for each in seen]))
    return {each.image_id: row for each, row in zip(seen, shapes, strict=True)}
