"""Run a base's tower over processed images, with as many tokens of each image as the base is set to."""

import contextlib
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch

from tasks.engine.base import Base
from tasks.engine.families.family import Grid
from tasks.errors import StudyError

Looked = list[tuple[torch.Tensor, Grid]]
"""Each image's features, `(tokens, d)`, and its grid."""


def look(base: Base, pixels: Mapping[str, Any], projected: bool = True) -> Looked:
    """The features of processed images, behind the projector, or as the tower gives them if not `projected`.

    If the base has `image_tokens`, the tower's square map is pooled to that many before the projector.

    Raises StudyError if there is no square map, or only a smaller one.
    """
    family, model = base.family, base.model
    if base.image_tokens is None:
        with contextlib.nullcontext() if projected else family.unprojected(model):
            return family.see(model, pixels)
    with family.unprojected(model):
        seen = family.see(model, pixels)
        pieces = [pooled(piece, grid, base.image_tokens, "model.image_tokens") for piece, grid in seen]
    edge = isqrt(base.image_tokens)
    return [(piece, (1, edge, edge)) for piece in (family.project(model, pieces) if projected else pieces)]


def grids(base: Base, pixels: Mapping[str, Any]) -> list[Grid]:
    """The grids that `look` would give."""
    found = base.family.grids(base.model, pixels)
    return (
        found if base.image_tokens is None else [(1, isqrt(base.image_tokens), isqrt(base.image_tokens))] * len(found)
    )


def pooled(piece: torch.Tensor, grid: Grid, tokens: int, setting: str) -> torch.Tensor:
    """The means of a square of regions that covers a square map, `(tokens, d)`; uneven regions overlap by one place.

    Args:
        piece: the map's features, `(n, d)`, row by row.
        grid: time, rows and columns of the map.
        tokens: a square number.
        setting: the setting that asks for them.

    Raises StudyError if the map is not square, or smaller.
    """
    time, height, width = grid
    if time != 1 or height != width or tokens > len(piece):
        raise StudyError(
            f"Expected {setting} to be at most the square of tokens that this model makes of an image, found "
            f"{tokens} and {len(piece)} tokens ({height} x {width}): set it lower or leave it out."
        )
    found = torch.nn.functional.adaptive_avg_pool2d(piece.T.unflatten(1, (height, width)), isqrt(tokens))
    return found.flatten(1).T
