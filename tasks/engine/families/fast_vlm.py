"""FastVLM's class in transformers: a LLaVA whose tower gives a map of features, as a convolutional network does."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.engine.families.family import Family, Grid, Preset, Rows, encoded
from tasks.store.shipped import COMPOSED, DATA

if TYPE_CHECKING:
    import torch


class FastVlm(Family):
    """A convolutional tower, a projector of two layers, a text model; smol-clip and radiology.

    Each place of the tower's last map is one token. Conversations are written by the folder's chat template.
    """

    model_types = ("fast_vlm",)
    presets: ClassVar[Mapping[str, Preset]] = {
        "smol-clip": Preset(str(COMPOSED / "smol-clip"), 0.14, "run fed-rag compose smol-clip"),
        "radiology": Preset(str(DATA / "radiology"), 0.005, "run fed-rag pretrain --slake DIR --vqa-rad DIR"),
    }

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation as the chat template writes it."""
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def processor(self, tokenizer: Any, image_processor: Any, config: Any) -> Any:
        """A processor that counts an image's tokens: LLaVA's, with the pixels of a place of the map as patch size."""
        from transformers import LlavaProcessor

        return LlavaProcessor(
            image_processor,
            tokenizer,
            patch_size=config.vision_config.image_size // isqrt(config.image_seq_length),
            vision_feature_select_strategy="full",
            num_additional_image_tokens=0,
            image_token=tokenizer.convert_ids_to_tokens(config.image_token_id),
            chat_template=self.chat_template(tokenizer, config),
        )

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """Only the features, all in one row: the model multiplies the first two dimensions to count them."""
        import torch

        return encoded(torch.cat(rows.images)[None] if rows.images else ())

    def see(self, model: Any, pixels: Mapping[str, Any]) -> list[tuple["torch.Tensor", Grid]]:
        """Each image's features and grid; unlike other towers, these do not convert pixels to their dtype."""
        return super().see(model, {"pixel_values": pixels["pixel_values"].to(model.dtype)})
