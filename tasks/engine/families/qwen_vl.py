"""Qwen2-VL and Qwen2.5-VL: images of any shape, the chat template of the model's own folder."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.engine.families.family import Family, Grid, Preset, Rows, encoded

if TYPE_CHECKING:
    import torch


class QwenVL(Family):
    """The LightFED model and its larger and later sisters; the embedded base is one of them."""

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
        """As the chat template writes it."""
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """Rotary positions in three dimensions follow from the grids and from where the placeholders are."""
        import torch

        placeholders = rows.ids == config.image_token_id
        return {
            "mm_token_type_ids": placeholders.int(),
            "position_ids": positions(placeholders, rows.grids, self.merge(config)),
            **({"image_grid_thw": torch.tensor(rows.grids)} if rows.grids else {}),
            **encoded(rows.images),
        }

    def limit(self, config: Any, image_processor: Any, max_pixels: int) -> None:
        """The processor resizes every image to about this many pixels at most."""
        # An image below the lower bound grows by whole rows of patches, which must not carry it past the upper one.
        smallest = min(image_processor.size["shortest_edge"], max_pixels // 4)
        image_processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}

    def merge(self, config: Any) -> int:
        """The tower joins neighbouring patches to one token."""
        return int(config.vision_config.spatial_merge_size)

    def laid_out(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """A row for each patch of a token: the projector joins them."""
        return rows.view(-1, rows.shape[1] // self.merge(config) ** 2)

    def by_token(self, config: Any, rows: "torch.Tensor") -> "torch.Tensor":
        """The patches of a token side by side."""
        return rows.reshape(-1, rows.shape[-1] * self.merge(config) ** 2)

    def grids(self, model: Any, pixels: Mapping[str, Any]) -> list[Grid]:
        """As the image processor found them."""
        return [(time, height, width) for time, height, width in pixels["image_grid_thw"].tolist()]

    def see(self, model: Any, pixels: Mapping[str, Any]) -> list[tuple["torch.Tensor", Grid]]:
        """One list of patches for all images, told apart by their grids."""
        grids = pixels["image_grid_thw"]
        found = model.get_image_features(pixels["pixel_values"], image_grid_thw=grids).pooler_output
        return [
            (piece, (time, height, width)) for piece, (time, height, width) in zip(found, grids.tolist(), strict=True)
        ]


def positions(placeholders: "torch.Tensor", grids: Sequence[Grid], merge: int) -> "torch.Tensor":
    """Rotary positions of rows padded on the right: time, height and width, `(3, B, T)`.

    The model works them out image by image at every step; here it is once for a batch. A text token is one place after
    what precedes it. An image's tokens start from one place, which height and width add to, and the longer of the two
    is what the image takes (Qwen2-VL, arXiv 2409.12191).

    Args:
        placeholders: `(B, T)`, True at image tokens.
        grids: patches of each image, row by row.
        merge: patches of one token along each side.
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
    """Of one image's tokens, their places from its first, `(3, tokens)`, and how far each moves what follows it."""
    import torch

    sides = grid[0], grid[1] // merge, grid[2] // merge
    places = torch.stack(torch.meshgrid(*map(torch.arange, sides), indexing="ij")).flatten(1)
    steps = torch.zeros(places.shape[1], dtype=torch.long)
    steps[-1] = max(sides[1:])
    return places, steps
