"""What a base has seen: the record of its training images, and which other images are among them.

Published images are copied, shrunk and compressed again, so beside the digest of its pixels an image has a perceptual
hash. Two images whose hashes differ in few bits are as good as the same: copies, or neighbouring slices of one scan.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.records import Image, SeenImage, read_table
from tasks.records.pixels import pixel_digest
from tasks.records.shapes import coarse, small, working_copy

ALIKE = 10
"""Most of the 99 bits in which the hashes of two images differ that are as good as the same; docs/audit.md says how it
was chosen."""
BYTES = 13
"""Length of a hash; its last five bits are 0."""

Sight = Literal["identical", "alike"]
"""How an image is among those seen: pixel for pixel, or by its perceptual hash alone."""


def shape_bits(data: bytes) -> bytes:
    """The perceptual hash of an image file: the signs of its 99 lowest frequencies in 13 bytes; empty if it is blank.

    Raises PictureError for a file that is no image.
    """
    picture = small(working_copy(data))
    return b"" if picture is None else np.packbits(coarse(picture[None])[0] > 0).tobytes()


def seen_images(images: Iterable[Image], datasets: Mapping[str, str]) -> Iterator[SeenImage]:
    """The rows of a record: one for each image that `datasets` names, which gives the dataset by image id."""
    for image in images:
        if image.id in datasets:
            yield SeenImage(datasets[image.id], pixel_digest(image.data), shape_bits(image.data))


def join(*records: Iterable[SeenImage]) -> list[SeenImage]:
    """One record of several: each row once, sorted by content, so that the order of the images is not told."""
    rows = {row for record in records for row in record}
    return sorted(rows, key=lambda row: (row.dataset, row.pixels, row.shape))


def read_seen(path: Path) -> list[SeenImage]:
    """Read a record.

    Raises StudyError if the file is no record.
    """
    try:
        rows = read_table(path, SeenImage)
        _bits([row.shape for row in rows if row.shape])
        return rows
    except (OSError, ValueError, pa.ArrowException):
        raise StudyError(
            f"Expected {path} to be a record of training images (dataset, pixels, shape), found another file: restore "
            "it as it came with the base, or remove it."
        ) from None


def find_seen(images: Iterable[Image], record: Iterable[SeenImage]) -> dict[str, Sight]:
    """The images that are among those of a record, by id; images that are not are left out."""
    rows = list(record)
    digests = {row.pixels for row in rows}
    shapes = _bits([row.shape for row in rows if row.shape])
    found: dict[str, Sight] = {}
    for image in images:
        if pixel_digest(image.data) in digests:
            found[image.id] = "identical"
        elif (shape := shape_bits(image.data)) and (_differing(shapes, _bits([shape])) <= ALIKE).any():
            found[image.id] = "alike"
    return found


def _bits(shapes: Sequence[bytes]) -> NDArray[np.uint8]:
    """Hashes as rows of bytes `(n, 13)`."""
    return np.frombuffer(b"".join(shapes), np.uint8).reshape(len(shapes), BYTES)


def _differing(shapes: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of bits in which each hash `(n, 13)` differs from another `(1, 13)`: `(n,)`."""
    return np.bitwise_count(shapes ^ other).sum(1, dtype=np.int64)
