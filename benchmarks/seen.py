"""How far apart the perceptual hashes of copies and of unrelated images lie, which chose `tasks.cases.seen.ALIKE`.

    python benchmarks/seen.py FOLDER FOLDER ...

Of each folder, every image is compared with its own copies: half the size, 256 pixels on the longest side, JPEG of
quality 85 and 60, and both. Then the nearest image of each other folder is told, and the nearest within the folder.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tasks.audit.folder import folder_images
from tasks.cases.seen import ALIKE, shape_bits
from tasks.records.pixels import to_rgb

LONGEST = 256
QUALITIES = (85, 60)
Bits = NDArray[np.uint8]


def copies(data: bytes) -> dict[str, bytes]:
    """The copies of an image file, by what was done."""
    picture = to_rgb(data)
    half = _shrunk(picture, 0.5)
    small = _shrunk(picture, min(1.0, LONGEST / max(picture.size)))
    found = {"half": _saved(half), f"{LONGEST} px": _saved(small)}
    for quality in QUALITIES:
        named = {"": picture, "half, ": half, f"{LONGEST} px, ": small}
        found |= {f"{name}JPEG {quality}": _saved(each, quality) for name, each in named.items()}
    return found


def _shrunk(picture: PIL.Image.Image, scale: float) -> PIL.Image.Image:
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), PIL.Image.Resampling.LANCZOS)


def _saved(picture: PIL.Image.Image, quality: int | None = None) -> bytes:
    sink = io.BytesIO()
    if quality is None:
        picture.save(sink, "PNG")
    else:
        picture.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def bits(hashes: Sequence[bytes]) -> Bits:
    """Hashes as bits `(n, 104)`; a blank image has none and is left out."""
    return np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 13), axis=1)


def distances(some: Bits, others: Bits) -> NDArray[np.int64]:
    """The bits in which hashes differ: `(n, m)`."""
    return np.stack([(row != others).sum(1) for row in some])


def told(name: str, found: NDArray[np.int64]) -> None:
    """Print a line: the least, the middle and the largest distance, and how many count as the same."""
    low, middle, high = np.quantile(found, (0.01, 0.5, 0.99))
    print(
        f"{name:44} n {len(found):5}  least {found.min():2}  1 % {low:4.0f}  median {middle:4.0f}  99 % {high:4.0f}  "
        f"most {found.max():2}  within {ALIKE}: {(found <= ALIKE).sum()}",
        flush=True,
    )


def main(folders: list[Path]) -> None:
    """Print the distances of copies, then those of different images."""
    hashes: dict[str, Bits] = {}
    for folder in folders:
        name = "/".join(folder.parts[-2:])
        own, apart = [], dict[str, list[int]]()
        for image in folder_images(folder):
            if not (hashed := shape_bits(image.data)):
                continue
            own.append(hashed)
            for kind, data in copies(image.data).items():
                apart.setdefault(kind, []).append(int((bits([hashed]) != bits([shape_bits(data)])).sum()))
        for kind, found in apart.items():
            told(f"{name}: {kind}", np.asarray(found))
        hashes[name] = bits(own)
    for name, some in hashes.items():
        for other, theirs in hashes.items():
            between = distances(some, theirs)
            if name == other:
                np.fill_diagonal(between, between.max() + 1)
            told(f"{name}: nearest {'other' if name == other else f'of {other}'}", between.min(1))


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
