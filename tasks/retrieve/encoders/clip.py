"""Loads CLIP and SigLIP by transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import OURS, StudyError
from tasks.retrieve.encoders.encoder import DualEncoder

if TYPE_CHECKING:
    import PIL.Image
    import torch


def read_clip(folder: Path, device: str = "cpu") -> DualEncoder:
    """Load a CLIP (arXiv 2103.00020) or SigLIP (arXiv 2303.15343) from a folder.

    Raises StudyError if the folder holds another model, or an incomplete one.
    """
    try:
        kind, model, tokenizer, image_processor = _read_parts(folder)
    except (StudyError, *OURS):
        raise
    except Exception as error:  # each library raises its own exceptions
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise StudyError(
            f"Expected a whole CLIP or SigLIP in {folder}, found one that does not load ({first}): download it again."
        ) from None
    model.requires_grad_(False).eval().to(device)
    longest = model.config.text_config.max_position_embeddings
    # SigLIP was trained on texts padded to one length, and attends to the padding.
    padding = "max_length" if kind == "siglip" else True

    def see(pictures: Sequence["PIL.Image.Image"]) -> "torch.Tensor":
        pixels = image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        found: torch.Tensor = model.get_image_features(pixel_values=pixels.to(device)).pooler_output
        return found

    def read(texts: Sequence[str]) -> "torch.Tensor":
        tokens = tokenizer(list(texts), padding=padding, truncation=True, max_length=longest, return_tensors="pt")
        inputs = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask") if name in tokens}
        found: torch.Tensor = model.get_text_features(**inputs).pooler_output
        return found

    return DualEncoder(see, read)


def _read_parts(folder: Path) -> tuple[str, Any, Any, Any]:
    """Load model type, model, tokenizer and image processor; raises whatever the libraries raise."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    kind = str(AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type)
    if kind not in ("clip", "siglip"):
        raise StudyError(f"Expected a CLIP or SigLIP in {folder}, found a model of type {kind}: give another folder.")
    loaded: Any = AutoModel.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(f"its weights lack {min(report['missing_keys'])}")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return kind, model, tokenizer, AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
