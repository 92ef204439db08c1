"""Tests of maps: deletion and insertion curves, and sensitivity to randomised model weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from tasks.engine.attribution.occlusion import boxes, without
from tasks.engine.base import Base
from tasks.engine.batch import Example
from tasks.engine.vision import Features
from tasks.explain.quality import area_under, milestones
from tasks.records import Image

STEPS = 16
"""Most points of a curve, not counting its first."""


def deletion_insertion(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    example: Example,
    shape: tuple[int, int],
    orders: Sequence[Sequence[int]],
    tokens: int,
) -> list[tuple[float, float]]:
    """Areas under the deletion and the insertion curve of each order of an image's cells (RISE, arXiv 1806.07421).

    The image is the question's. Deletion covers its cells in order. Insertion starts with all cells covered and
    uncovers them. Covered cells have the image's mean colour. A curve's height is the probability of the example's
    whole answer. A good order has a small deletion area and a large insertion area; compare with a random order.

    Args:
        base: the model with its current adapter.
        features: features of the prompt's images.
        images: the prompt's images by id, at least the question's image.
        example: the prompt with the answer.
        shape: rows and columns of the grid. The orders number its cells row by row.
        orders: each holds every cell once (`quality.ranked`).
        tokens: most tokens, padding included, in one forward pass.
    """
    place = len(example.image_ids) - 1
    cells = boxes(base, images[example.image_ids[place]], *shape)
    counts = milestones(len(cells), STEPS)
    wanted = [
        frozenset(hidden)
        for order in orders
        for hidden in (*(order[:count] for count in counts), *(order[count:] for count in counts))
    ]
    choices = list(dict.fromkeys(wanted))
    covered = [[cells[cell] for cell in sorted(hidden)] for hidden in choices]
    likely = np.exp(without(base, features, images, example, place, covered, tokens).sum(1))
    heights = dict(zip(choices, likely.tolist(), strict=True))
    curves = np.array([heights[hidden] for hidden in wanted]).reshape(len(orders), 2, len(counts))
    return [(area_under(deleted, counts), area_under(inserted, counts)) for deleted, inserted in curves]


@contextmanager
def randomised(base: Base, layers: int, seed: int) -> Iterator[None]:
    """Within this context, the weights of the text model's last layers are shuffled, adapters included.

    After the cascading randomisation of Adebayo et al. (arXiv 1810.03292), starting from the output. Each weight matrix
    keeps its values, and so its scale. A map that stays the same does not depend on what the model has learned.
    """
    chosen = base.model.model.language_model.layers[-layers:]
    weights = [each for each in chosen.parameters() if each.dim() > 1]
    kept = [each.detach().clone() for each in weights]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for each, value in zip(weights, kept, strict=True):
                order = torch.randperm(value.numel(), generator=generator).to(value.device)
                each.copy_(value.flatten()[order].view_as(value))
        yield
    finally:
        with torch.no_grad():
            for each, value in zip(weights, kept, strict=True):
                each.copy_(value)
