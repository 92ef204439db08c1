"""LLaMA-CLIP: a vision tower and a Llama text model combined into one ordinary LLaVA folder.

This represents the model of Alsinglawi et al. (arXiv 2504.05575): BiomedCLIP's image features before LLaMA-3. The
paper names neither projector nor layer, so ours are LLaVA's: two new linear layers on the tower's last layer but one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.families.composing import add_placeholder, composed, fresh_projector
from tasks.engine.families.open_clip import OPEN_CLIP, read_open_clip
from tasks.engine.written import write_base
from tasks.errors import OURS, StudyError

if TYPE_CHECKING:
    import torch


def compose(vision: Path, text: Path, out: Path, seed: int = 0) -> Path:
    """Write a LLaVA folder from the parts; `model.name` accepts it like any other folder.

    Args:
        vision: BiomedCLIP as open_clip publishes it, or a transformers CLIP or ViT folder.
        text: a transformers Llama folder with its tokenizer.
        out: the folder to write.
        seed: seed for the projector's initial weights.

    Raises StudyError if a part is of another kind, or a tensor is missing, left over or of another shape.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

    _check_type(text, ("llama",), "a Llama text model")
    language = _whole(LlamaForCausalLM, text, dtype="auto")
    tokenizer = _part(AutoTokenizer, text)
    image = add_placeholder(tokenizer, language)
    tower_config, tower, processor = _read_tower(vision)
    config = LlavaConfig(
        vision_config=tower_config,
        text_config=language.config,
        image_token_index=image,
        image_seq_length=(tower_config.image_size // tower_config.patch_size) ** 2,
        tie_word_embeddings=language.config.tie_word_embeddings,
        dtype=language.dtype,
    )
    model = composed(
        LlavaForConditionalGeneration, config, tower, language, lambda expected: _fresh(expected, seed), str(out)
    )
    write_base(out, model, tokenizer, processor)
    return out


def _fresh(expected: Mapping[str, "torch.Tensor"], seed: int) -> dict[str, "torch.Tensor"]:
    """New weights: the projector's, and zeros for the unused pooler.

    Transformers adds a pooler to a ViT, which BiomedCLIP lacks. Its output is replaced by the projector's.
    """
    import torch

    pooler = [name for name in expected if name.startswith("model.vision_tower.pooler.")]
    return fresh_projector(expected, seed) | {name: torch.zeros(expected[name].shape) for name in pooler}


def _read_tower(folder: Path) -> tuple[Any, Mapping[str, "torch.Tensor"], Any]:
    """Configuration, tensors and image processor of a vision tower."""
    from transformers import AutoImageProcessor, CLIPVisionModel, ViTModel

    if (folder / OPEN_CLIP).is_file():
        return read_open_clip(folder)
    kind = _check_type(folder, ("clip", "clip_vision_model", "vit"), f"BiomedCLIP ({OPEN_CLIP}), a CLIP or a ViT")
    model = _whole(ViTModel if kind == "vit" else CLIPVisionModel, folder)
    return model.config, model.state_dict(), _part(AutoImageProcessor, folder)


def _check_type(folder: Path, types: tuple[str, ...], what: str) -> str:
    """The model type of a folder. Raises StudyError if it is not among `types`."""
    from transformers import AutoConfig

    kind = str(_part(AutoConfig, folder).model_type)
    if kind not in types:
        raise StudyError(f"Expected {what} in {folder}, found a model of type {kind}: give another folder.")
    return kind


def _whole(reader: Any, folder: Path, **options: Any) -> Any:
    """Load a model. Raises StudyError if a weight is missing, except in a pooler, which is never used."""
    model, report = _part(reader, folder, use_safetensors=True, output_loading_info=True, **options)
    missing = [name for name in report["missing_keys"] if "pooler" not in name.split(".")]
    if missing:
        raise StudyError(f"Expected a whole model in {folder}, found one that lacks {min(missing)}: download it again.")
    return model


def _part(reader: Any, folder: Path, **options: Any) -> Any:
    try:
        return reader.from_pretrained(folder, trust_remote_code=False, **options)
    except OURS:
        raise
    except Exception as error:  # every library below raises its own kinds
        first = str(error).strip().split("\n")[0]
        raise StudyError(
            f"Expected a whole transformers model in {folder}, found one that does not load ({first}): "
            "download it again."
        ) from None
