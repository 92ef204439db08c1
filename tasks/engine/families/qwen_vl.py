"""Qwen2-VL and Qwen2.5-VL: images of any shape, with the chat template of the model's folder."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.engine.families.family import Family, Grid, Preset, Rows, encoded

if TYPE_CHECKING:
    import torch


class QwenVL(Family):
    """LightFED's model and its larger and later relatives; the embedded base is a small Qwen2-VL."""

    model_types = ("qwen2_vl", "qwen2_5_vl")
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen2-vl-2b": Preset("Qwen/Qwen2-VL-2B-Instruct", 2.2),
        "qwen2-vl-7b": Preset("Qwen/Qwen2-VL-7B-Instruct", 8.3),
        "qwen2.5-vl-3b": Preset("Qwen/Qwen2.5-VL-3B-Instruct", 3.8),
        "qwen2.5-vl-7b": Preset("Qwen/Qwen2.5-VL-7B-Instruct", 8.3),
    }

    tower = "model.visual"
    projector = "model.visual.merger"

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation as the chat template writes it."""
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """The features, and rotary positions in three dimensions, computed from the grids and the placeholders."""
        import torch

        placeholders = rows.ids == config.image_token_id
        return {
            "mm_token_type_ids": placeholders.int(),
            "position_ids": positions(placeholders, rows.grids, self.merge(config)),
            **({"image_grid_thw": torch.tensor(rows.grids)} if rows.grids else {}),
            **encoded(rows.images),
        }

    def limit(self, config: Any, image_processor: Any, max_pixels: int) -> None:
        """Make the processor resize every image to about this many pixels at most."""
        # An image below the lower bound grows by whole rows of patches. This must not push it over the upper bound.
        smallest = min(image_processor.size["shortest_edge"], max_pixels // 4)
        image_processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}

    def merge(self, config: Any) -> int:
        """The tower joins this many neighbouring patches along each side into one token."""
        return int(config.vision_config.spatial_merge_size)

    def laid_out(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """One row per patch of a token: the projector joins them."""
        return rows.view(-1, rows.shape[1] // self.merge(config) ** 2)

    def by_token(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """The patches of a token side by side in one row."""
        return rows.reshape(-1, rows.shape[-1] * self.merge(config) ** 2)

    def grids(self, model: Any, pixels: Mapping[str, Any]) -> list[Grid]:
        """The grids that the image processor found."""
        return [(time, height, width) for time, height, width in pixels["image_grid_thw"].tolist()]

    def see(self, model: Any, pixels: Mapping[str, Any]) -> list[tuple["torch.Tensor", Grid]]:
        """Features and grids; the model takes all images' patches in one list and separates them by their grids."""
        grids = pixels["image_grid_thw"]
        found = model.get_image_features(pixels["pixel_values"], image_grid_thw=grids).pooler_output
        return [
            (piece, (time, height, width)) for piece, (time, height, width) in zip(found, grids.tolist(), strict=True)
        ]


def positions(placeholders: "torch.Tensor", grids: Sequence[Grid], merge: int) -> "torch.Tensor":
    """Rotary positions of rows padded on the right: time, height and width, `(3, B, T)`.

    The model itself would compute them image by image at every step; this computes them once per batch. A text token
    is one position after the token before it. An image's tokens share a start, to which time, row and column are added.
    The next token continues after the longer side of the image (Qwen2-VL, arXiv 2409.12191).

    Args:
        placeholders: `(B, T)`, True at image tokens.
        grids: patches of each image, row by row.
        merge: number of patches along each side of a token.
    """
    import torch

    images = {grid: _image(grid, merge) for grid in set(grids)}
    steps = (~placeholders).long()
    if grids:
        steps[placeholders] = torch.cat([images[grid][1] for grid in grids])
    found = (steps.cumsum(1) - steps).repeat(3, 1, 1)
    if grids:
        found[:, placeholders] += torch.cat([images[grid][0] for grid in grids], dim=1)
    return found


def _image(grid: Grid, merge: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The positions of one image's tokens from its first, `(3, tokens)`, and by how much each shifts what follows."""
    import torch

    sides = grid[0], grid[1] // merge, grid[2] // merge
    places = torch.stack(torch.meshgrid(*map(torch.arange, sides), indexing="ij")).flatten(1)
    steps = torch.zeros(places.shape[1], dtype=torch.long)
    steps[-1] = max(sides[1:])
    return places, steps
