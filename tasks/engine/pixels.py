"""Images for a tower or projector that learns: their features change with every step, and are computed anew."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.engine.base import Base
from tasks.engine.families.family import Grid
from tasks.engine.vision import Features, batches, process
from tasks.records import Image


@dataclass(frozen=True)
class Pixels(Features):
    """What the tower makes of images at the moment when it is asked, gradients included.

    It stands wherever cached features do, and has no rows of its own.
    """

    base: Base
    images: dict[str, Image]

    def of(self, image_id: str) -> torch.Tensor:
        """One image's features, `(tokens, d)`."""
        return self.all_of([image_id])[0]

    def all_of(self, image_ids: Sequence[str]) -> list[torch.Tensor]:
        """The features of the images of one batch, in their order, each image seen once."""
        names = list(dict.fromkeys(image_ids))
        if not names:
            return []
        pixels = process(self.base, [self.images[name] for name in names])
        pieces = [piece for piece, _ in self.base.family.see(self.base.model, pixels)]
        seen = dict(zip(names, pieces, strict=True))
        return [seen[name] for name in image_ids]


@torch.inference_mode()
def keep_images(base: Base, images: Sequence[Image]) -> Pixels:
    """The images, their sizes told beforehand: prompts are tokenised by them."""
    grids: dict[str, Grid] = {}
    for batch in batches(images, 32):
        grids |= zip([image.id for image in batch], base.family.grids(base.model, process(base, batch)), strict=True)
    return Pixels(torch.empty(0), {}, grids, base.family.merge(base.config), base, {each.id: each for each in images})
