"""Images that are copies of each other: candidates by nearest coarse shape, each then verified by its detail.

Cost grows about linearly with the number of images: an image has a bounded number of candidates, and in a
large set these are looked for in a few cells of an inverted file.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

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
LIKELY = 0.7
"""Candidates whose coarse shapes correlate less are not verified."""
COPY = 0.86
"""Correlation of detail from which two images are taken for copies; docs/audit.md says how it was chosen."""
GLANCE = 0.25
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
    shapes = coarse(pictures)
    glances = np.concatenate([_glances(pictures[at : at + CHUNK]) for at in range(0, len(pictures), CHUNK)])

    def verify(
        tried: tuple[tuple[int, int], NDArray[np.intp], NDArray[np.intp]],
    ) -> list[tuple[int, int, bool, float]]:
        (down, across), one, other = tried
        alike = np.einsum("nij,nij->n", glances[one][:, ::down, ::across], glances[other], dtype=np.float32)
        one, other = one[alike >= GLANCE], other[alike >= GLANCE]
        scores = agreement(np.ascontiguousarray(pictures[one][:, ::down, ::across]), pictures[other], COPY)
        flipped = (down, across) != (1, 1)
        return [
            (int(owner[one[place]]), int(owner[other[place]]), flipped, float(scores[place]))
            for place in np.flatnonzero(scores >= COPY)
        ]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(verify, _candidates(shapes, owner)):
            yield from found


def _glances(pictures: NDArray[np.float16]) -> Vectors:
    """What tells most candidates apart before anything is laid over: detail at half the size."""
    return detail(halved(pictures), SMOOTH // 2)


def _candidates(
    shapes: Vectors, owner: NDArray[np.intp]
) -> Iterator[tuple[tuple[int, int], NDArray[np.intp], NDArray[np.intp]]]:
    """For each flip, chunks of pictures and the others that may show the same: each pair of images once."""
    search = searcher(shapes)
    signs = np.asarray([1, -1] * (COARSE // 2), np.float32)
    views = np.bincount(owner).max()
    for flip in FLIPS:
        mirror = np.outer(signs if flip[0] < 0 else signs**2, signs if flip[1] < 0 else signs**2).ravel()[1:]
        near, found = search(np.ascontiguousarray(shapes * mirror), min(CANDIDATES + int(views), len(shapes)))
        asked: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
        for query, (row, cosines) in enumerate(zip(found.tolist(), near.tolist(), strict=True)):
            for other, cosine in zip(row, cosines, strict=True):
                if other >= 0 and cosine >= LIKELY and owner[other] != owner[query]:
                    key = (int(owner[query]), int(owner[other]))
                    asked[min(key), max(key)].append((-cosine, query, other))
        # Two images may meet in several of their pictures: the two nearest meetings are enough to verify.
        tried = sorted({pair for meetings in asked.values() for pair in _unlike(meetings)})
        for start in range(0, len(tried), CHUNK):
            part = np.asarray(tried[start : start + CHUNK], np.intp)
            yield flip, part[:, 0], part[:, 1]


def _unlike(meetings: Iterable[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """The two nearest of the meetings; that of `a` with `b` is also that of `b` with `a`."""
    met: dict[tuple[int, int], tuple[int, int]] = {}
    for _, one, other in sorted(meetings):
        met.setdefault((min(one, other), max(one, other)), (one, other))
    return list(met.values())[:2]


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
