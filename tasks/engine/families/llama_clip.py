"""LLaMA-CLIP: a vision tower and a Llama text model combined into one ordinary LLaVA folder.

This represents the model of Alsinglawi et al. (arXiv 2504.05575): BiomedCLIP's image features before LLaMA-3. The
paper names neither projector nor layer, so ours are LLaVA's: two new linear layers on the tower's last layer but one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.families.open_clip import OPEN_CLIP, check_tensors, read_open_clip
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
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

    _check_type(text, ("llama",), "a Llama text model")
    language = _whole(LlamaForCausalLM, text, dtype="auto")
    tokenizer = _part(AutoTokenizer, text)
    image = _add_placeholder(tokenizer, language)
    tower_config, tower, processor = _read_tower(vision)
    config = LlavaConfig(
        vision_config=tower_config,
        text_config=language.config,
        image_token_index=image,
        image_seq_length=(tower_config.image_size // tower_config.patch_size) ** 2,
        tie_word_embeddings=language.config.tie_word_embeddings,
        dtype=language.dtype,
    )
    with torch.device("meta"):  # the parts' tensors are put in below: no weights are drawn only to be replaced
        model = LlavaForConditionalGeneration(config)
    expected = model.state_dict()
    state = {f"model.vision_tower.{name}": tensor for name, tensor in tower.items()}
    state |= {f"model.language_model.{name}": tensor for name, tensor in language.model.state_dict().items()}
    state["lm_head.weight"] = language.lm_head.weight
    state |= _fresh(expected, seed)
    check_tensors(state, {name: tuple(tensor.shape) for name, tensor in expected.items()}, str(out))
    model.load_state_dict({name: tensor.detach().to(language.dtype) for name, tensor in state.items()}, assign=True)
    write_base(out, model, tokenizer, processor)
    return out


def _add_placeholder(tokenizer: Any, language: Any) -> int:
    """Add an `<image>` token to tokenizer and text model; returns its id.

    Its new row is the mean of all others. Its logit is then the mean of theirs, so it is never generated.
    """
    import torch

    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    if tokenizer.convert_tokens_to_ids("<|eot_id|>") not in (None, tokenizer.unk_token_id):
        tokenizer.eos_token = "<|eot_id|>"  # ends a turn; some copies name only the token that ends a whole text
    found = int(tokenizer.convert_tokens_to_ids("<image>"))
    rows = language.get_input_embeddings().weight.shape[0]
    if found >= rows:
        language.resize_token_embeddings(found + 1, mean_resizing=False)
        for weight in (language.get_input_embeddings().weight, language.get_output_embeddings().weight):
            with torch.no_grad():
                weight[rows:] = weight[:rows].float().mean(0).to(weight.dtype)
    return found


def _fresh(expected: Mapping[str, "torch.Tensor"], seed: int) -> dict[str, "torch.Tensor"]:
    """New weights: for the projector, Xavier uniform with zero biases; for the unused pooler, zeros.

    Transformers adds a pooler to a ViT, which BiomedCLIP lacks. Its output is replaced by the projector's.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in sorted(expected.items()):
        if name.startswith(("model.multi_modal_projector.", "model.vision_tower.pooler.")):
            state[name] = torch.zeros(tensor.shape)
            if tensor.dim() == 2 and "projector" in name:
                torch.nn.init.xavier_uniform_(state[name], generator=generator)
    return state


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
