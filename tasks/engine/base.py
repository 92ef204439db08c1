"""The frozen base: an ordinary Hugging Face vision-language model, from a local folder or the hub."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from tasks.engine.identity import resolve
from tasks.errors import StudyError


@dataclass(frozen=True)
class Base:
    """A loaded base, with what turns text and images into its inputs."""

    model: Any
    """The `transformers` model, for conditional generation."""
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any
    image_token_id: int
    """The placeholder that stands for one image feature in the prompt."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)


def load_base(name: str, revision: str | None = None, device: str = "auto", max_pixels: int | None = None) -> Base:
    """Load a base for inference, every weight frozen.

    Args:
        name: a local folder, a hub id, or `embedded`.
        revision: hub branch, tag or commit.
        device: `auto`, `cpu` or `cuda`; bfloat16 on CUDA, float32 on CPU.
        max_pixels: upper bound on a resized image's pixels; the processor's own if None.

    Raises StudyError where the model is absent, incomplete or of another kind.
    """
    place = resolve(name)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise StudyError("Setting model.device is cuda, but this machine has no CUDA device: set it to auto or cpu.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
        image_processor = AutoImageProcessor.from_pretrained(place, revision=revision)
        model = AutoModelForImageTextToText.from_pretrained(
            place, revision=revision, dtype=torch.bfloat16 if device == "cuda" else torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(_reason(place, error)) from None
    if max_pixels is not None:
        smallest = min(image_processor.size["shortest_edge"], max_pixels)
        image_processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
    model.requires_grad_(False).eval().to(device)
    return Base(model, tokenizer, image_processor, model.config.image_token_id)


def _reason(place: str, error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return (
        f"Expected a whole vision-language model in {place} (config.json, safetensors, tokenizer, "
        f"preprocessor_config.json), found one that does not load ({first}): download it again."
    )
