"""Images for a tower or projector that learns: their features change at each step and are computed again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from tasks.engine.base import Base
from tasks.engine.families.family import Grid
from tasks.engine.thumbnail import original
from tasks.engine.tower import grids, look
from tasks.engine.vision import Features, batches, encode_images, process
from tasks.records import Image


@dataclass(frozen=True)
class Pixels(Features):
    """Features that are computed at each call, with gradients.

    It can replace cached features anywhere. Its `rows` are empty.
    """

    base: Base
    images: dict[str, Image]

    def of(self, image_id: str) -> torch.Tensor:
        """One image's features, `(tokens, d)`."""
        return self.all_of([image_id])[0]

    def all_of(self, image_ids: Sequence[str]) -> list[torch.Tensor]:
        """The features of one batch's images, in their order; each image passes the tower once."""
        names = list(dict.fromkeys(original(name) for name in image_ids))
        if not names:
            return []
        pixels = process(self.base, [self.images[name] for name in names])
        pieces = [piece for piece, _ in look(self.base, pixels)]
        seen = dict(zip(names, pieces, strict=True))
        return [self.shrunk(seen[original(name)], name) for name in image_ids]

    def fixed(self, image_ids: Iterable[str]) -> Features:
        """Features of these images with the present weights, without gradients; they are held in memory."""
        wanted = [self.images[name] for name in dict.fromkeys(original(name) for name in image_ids)]
        return encode_images(self.base, wanted) if wanted else self


@torch.inference_mode()
def keep_images(base: Base, images: Sequence[Image]) -> Pixels:
    """Features of these images to be computed later; only the grids are computed now, since `encode` needs them."""
    found: dict[str, Grid] = {}
    for batch in batches(images, 32):
        found |= zip([image.id for image in batch], grids(base, process(base, batch)), strict=True)
    return Pixels(torch.empty(0), {}, found, base.family.merge(base.config), base, {each.id: each for each in images})


def see_again(base: Base, features: Features, images: Iterable[Image]) -> Pixels:
    """The same images' features, to be computed later; grids do not depend on weights, so those of `features` hold."""
    return Pixels(torch.empty(0), {}, features.grids, features.merge, base, {each.id: each for each in images})
