"""Vision features: the output of the frozen parts for each image, computed once and reused exactly.

The frozen parts are the tower and its projector. If the projector learns, only the tower is frozen, and the projector
runs again at each step. If the tower learns, nothing is reused: see `Pixels`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from tqdm import tqdm

from tasks.engine.base import Base
from tasks.engine.families.family import Grid
from tasks.engine.thumbnail import original, tokens_of
from tasks.engine.tower import look, pooled
from tasks.records import Image
from tasks.records.pixels import to_rgb

FEATURES = "features.safetensors"

Seen = tuple[str, torch.Tensor, Grid]
"""An image's id, its features `(tokens, d)`, and its grid."""


@dataclass(frozen=True)
class Features:
    """Features of many images, with one row per image token."""

    rows: torch.Tensor
    """`(tokens of all images, d)`, in the base's dtype."""
    starts: dict[str, int]
    """First row of each image."""
    grids: dict[str, Grid]
    """Patches of each image: time, height, width, before the tower merges them."""
    merge: int
    """Number of patches along each side of a token."""
    projected: bool = field(default=True, kw_only=True)
    """Whether the rows are the projector's output; else they are the tower's, because the projector learns."""

    def of(self, image_id: str) -> torch.Tensor:
        """One image's features, `(tokens, d)`; of a thumbnail the image's, pooled."""
        if image_id not in self.grids:
            return self.shrunk(self.of(original(image_id)), image_id)
        start = self.starts[image_id]
        return self.rows[start : start + self.tokens(image_id)]

    def shrunk(self, piece: torch.Tensor, name: str) -> torch.Tensor:
        """An image's features, `(tokens, d)`, pooled to the number of tokens that the name asks for.

        Raises StudyError if they are no square, or fewer.
        """
        tokens = tokens_of(name)
        if tokens is None:
            return piece
        return pooled(piece, (1, *self.shape(original(name))), tokens, "retrieval.image_tokens")

    def grid(self, image_id: str) -> Grid:
        """An image's patches: time, height, width, before the tower merges them."""
        tokens = tokens_of(image_id)
        if image_id in self.grids or tokens is None:
            return self.grids[image_id]
        edge = isqrt(tokens) * self.merge
        return (1, edge, edge)

    def all_of(self, image_ids: Sequence[str]) -> list[torch.Tensor]:
        """The features of one batch's images, in their order; an image may occur twice."""
        return [self.of(image_id) for image_id in image_ids]

    def fixed(self, image_ids: Iterable[str]) -> "Features":
        """The features of at least these images, for use while no weight changes: each is computed only once."""
        return self

    def tokens(self, image_id: str) -> int:
        """The number of an image's tokens, hence of its placeholders in the prompt."""
        time, height, width = self.grid(image_id)
        return time * height * width // self.merge**2

    def shape(self, image_id: str) -> tuple[int, int]:
        """Rows and columns of an image's tokens; a time axis counts as further rows."""
        time, height, width = self.grid(image_id)
        return time * height // self.merge, width // self.merge

    def pooled(self, image_ids: Sequence[str]) -> np.ndarray:
        """The mean feature of each image, `(n, d)` float32."""
        return torch.stack([self.of(image_id).float().mean(0) for image_id in image_ids]).cpu().numpy()

    def to_bytes(self) -> bytes:
        """The features as a safetensors file."""
        return save({"rows": self.rows.cpu()}, _metadata(self.starts, self.grids, self.merge, self.projected))


def _metadata(starts: Mapping[str, int], grids: Mapping[str, Grid], merge: int, projected: bool) -> dict[str, str]:
    images = {image_id: [start, *grids[image_id]] for image_id, start in starts.items()}
    # One entry only: safetensors writes several in an order that changes from call to call.
    return {"index": json.dumps({"merge": merge, "images": images} | ({} if projected else {"projected": False}))}


def load_features(path: Path) -> Features:
    """Load features that `to_bytes` or `write_features` wrote; the file is memory-mapped, not read."""
    with safe_open(path, framework="pt") as file:
        index = json.loads(file.metadata()["index"])
        rows = file.get_tensor("rows")
    starts = {image_id: entry[0] for image_id, entry in index["images"].items()}
    grids = {image_id: (entry[1], entry[2], entry[3]) for image_id, entry in index["images"].items()}
    return Features(rows, starts, grids, index["merge"], projected=index.get("projected", True))


def gather_features(wanted: Mapping[str, tuple[Features, str]]) -> Features:
    """Copy some images' features under new ids.

    `wanted` maps each new id to the features that hold the image and its id there. All must have the same `merge` and
    `projected`.
    """
    starts: dict[str, int] = {}
    total = 0
    for name, (features, image_id) in wanted.items():
        starts[name] = total
        total += features.tokens(image_id)
    rows = torch.cat([features.of(image_id) for features, image_id in wanted.values()])
    grids = {name: features.grid(image_id) for name, (features, image_id) in wanted.items()}
    first, _ = next(iter(wanted.values()))
    return Features(rows, starts, grids, first.merge, projected=first.projected)


def encode_images(base: Base, images: Iterable[Image], batch_size: int = 32, projected: bool = True) -> Features:
    """Run the frozen tower once over each image; all features are held in memory."""
    starts: dict[str, int] = {}
    grids: dict[str, Grid] = {}
    pieces: list[torch.Tensor] = []
    total = 0
    for image_id, piece, grid in see(base, images, batch_size, projected=projected):
        starts[image_id], grids[image_id] = total, grid
        total += len(piece)
        pieces.append(piece)
    return Features(torch.cat(pieces), starts, grids, base.family.merge(base.config), projected=projected)


@torch.inference_mode()
def see(
    base: Base, images: Iterable[Image], batch_size: int = 32, total: int | None = None, projected: bool = True
) -> Iterator[Seen]:
    """Yield the features of each image, with only one batch in memory; `total` is for the progress bar."""
    for batch in batches(images, batch_size, total):
        found = look(base, process(base, batch), projected)
        for image, (piece, grid) in zip(batch, found, strict=True):
            yield image.id, piece.cpu(), grid


def write_features(path: Path, seen: Iterable[Seen], merge: int, projected: bool = True) -> Features:
    """Write features in the format of `to_bytes`, with one image in memory at a time; returns them memory-mapped.

    `seen` yields the id, rows `(tokens, d)` and grid of at least one image.
    """
    beside = path.with_suffix(".rows")
    starts: dict[str, int] = {}
    grids: dict[str, Grid] = {}
    total = 0
    with beside.open("wb") as sink:
        for image_id, piece, grid in seen:
            starts[image_id], grids[image_id] = total, grid
            total += len(piece)
            sink.write(piece.contiguous().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    width, dtype = piece.shape[1], piece.dtype
    rows = torch.from_file(str(beside), size=total * width, dtype=dtype).view(total, width)
    save_file({"rows": rows}, path, _metadata(starts, grids, merge, projected))
    beside.unlink()
    return load_features(path)


def process(base: Base, images: Sequence[Image]) -> Any:
    """The output of the base's image processor, on the base's device."""
    return base.image_processor(images=[to_rgb(image.data) for image in images], return_tensors="pt").to(base.device)


def batches(images: Iterable[Image], batch_size: int, total: int | None = None) -> Iterator[list[Image]]:
    """Yield the images in batches, with a progress bar."""
    waiting = iter(tqdm(images, desc="images", unit="image", total=total, leave=False, disable=None))
    while batch := list(islice(waiting, batch_size)):
        yield batch
