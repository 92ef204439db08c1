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

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """As the chat template writes it."""
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """Rotary positions in three dimensions follow from the grids and from where the placeholders are."""
        import torch

        return {
            "mm_token_type_ids": (rows.ids == config.image_token_id).int(),
            "image_grid_thw": torch.tensor(rows.grids),
            "mm_encoder_outputs": encoded(rows.images),
        }

    def limit(self, config: Any, image_processor: Any, max_pixels: int) -> None:
        """The processor resizes every image to about this many pixels at most."""
        # An image below the lower bound grows by whole rows of patches, which must not carry it past the upper one.
        smallest = min(image_processor.size["shortest_edge"], max_pixels // 4)
        image_processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}

    def merge(self, config: Any) -> int:
        """The tower joins neighbouring patches to one token."""
        return int(config.vision_config.spatial_merge_size)

    def see(self, model: Any, pixels: Mapping[str, Any]) -> list[tuple["torch.Tensor", Grid]]:
        """One list of patches for all images, told apart by their grids."""
        grids = pixels["image_grid_thw"]
        found = model.get_image_features(pixels["pixel_values"], image_grid_thw=grids).pooler_output
        return [
            (piece, (time, height, width)) for piece, (time, height, width) in zip(found, grids.tolist(), strict=True)
        ]
