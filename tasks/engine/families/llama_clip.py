"""LLaMA-CLIP: a vision tower and a Llama text model put together as one ordinary LLaVA folder.

This stands for the model of Alsinglawi et al. (arXiv 2504.05575), BiomedCLIP's image features before LLaMA-3. They
name neither projector nor chosen layer; ours are LLaVA's: two fresh linear layers on the tower's last layer but one.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.families.family import Preset
from tasks.errors import StudyError

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parents[3] / "data" / "cache" / "llama-clip"
PRESETS = {
    "llama-clip": Preset(
        str(FOLDER),
        8.1,
        f"compose it once with tasks.engine.families.llama_clip.compose(BIOMEDCLIP, LLAMA, {str(FOLDER)!r}), "
        "from the downloaded folders of BiomedCLIP and of LLaMA-3 8B Instruct",
    )
}
TRUNK = "visual.trunk."
OPEN_CLIP = "open_clip_config.json"
OTHERS = ("visual.head.", "text.", "logit_scale", "logit_bias")


def compose(vision: Path, text: Path, out: Path, seed: int = 0) -> Path:
    """Write a LLaVA folder from the parts; `model.name` takes it as any other.

    Args:
        vision: BiomedCLIP as open_clip publishes it, or a transformers CLIP or ViT folder.
        text: a transformers Llama folder with its tokenizer.
        out: the folder to write.
        seed: of the projector's first weights.

    Raises StudyError where a part is of another kind, or a tensor is missing, left over or misshapen.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration

    language = AutoModelForCausalLM.from_pretrained(text, dtype="auto", use_safetensors=True)
    if language.config.model_type != "llama":
        raise StudyError(f"Expected a Llama text model in {text}, found one of type {language.config.model_type}.")
    tokenizer = AutoTokenizer.from_pretrained(text)
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
    with torch.device("meta"):  # the parts' own tensors take the places, none is drawn and thrown away
        model = LlavaForConditionalGeneration(config)
    expected = model.state_dict()
    state = {f"model.vision_tower.{name}": tensor for name, tensor in tower.items()}
    state |= {f"model.language_model.{name}": tensor for name, tensor in language.model.state_dict().items()}
    state["lm_head.weight"] = language.lm_head.weight
    state |= _fresh(expected, seed)
    check_tensors(state, {name: tuple(tensor.shape) for name, tensor in expected.items()}, str(out))
    model.load_state_dict({name: tensor.detach().to(language.dtype) for name, tensor in state.items()}, assign=True)
    for part in (model, tokenizer, processor):
        part.save_pretrained(out)
    return out


def _add_placeholder(tokenizer: Any, language: Any) -> int:
    """Give tokenizer and text model an `<image>` token; its id.

    Its new row is the mean of all others, so its logit is their mean and never the highest: it is not generated.
    """
    import torch

    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    if tokenizer.convert_tokens_to_ids("<|eot_id|>") not in (None, tokenizer.unk_token_id):
        tokenizer.eos_token = "<|eot_id|>"  # ends a turn; some copies name only the end of a whole text
    found = int(tokenizer.convert_tokens_to_ids("<image>"))
    rows = language.get_input_embeddings().weight.shape[0]
    if found >= rows:
        language.resize_token_embeddings(found + 1, mean_resizing=False)
        for weight in (language.get_input_embeddings().weight, language.get_output_embeddings().weight):
            with torch.no_grad():
                weight[rows:] = weight[:rows].float().mean(0).to(weight.dtype)
    return found


def _fresh(expected: Mapping[str, "torch.Tensor"], seed: int) -> dict[str, "torch.Tensor"]:
    """The projector: Xavier's uniform weights, biases of zero; and a pooler of zeros, which nothing reads.

    Transformers gives a ViT one that BiomedCLIP does not have; its output is replaced by the projector's.
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


def check_tensors(state: Mapping[str, "torch.Tensor"], expected: Mapping[str, tuple[int, ...]], place: str) -> None:
    """Refuse tensors that are not, name by name and shape by shape, the expected ones."""
    for problem, names in (("lacks", expected.keys() - state.keys()), ("has beside them", state.keys() - expected)):
        if names:
            raise StudyError(
                f"Expected the {len(expected)} tensors of the model in {place}, found a checkpoint that {problem} "
                f"{min(names)}: take the model as published."
            )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise StudyError(
                f"Expected {name} of shape {shape} for {place}, found {tuple(state[name].shape)}: "
                "take the model as published."
            )


def _read_tower(folder: Path) -> tuple[Any, Mapping[str, "torch.Tensor"], Any]:
    """Configuration, tensors and image processor of a vision tower."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, CLIPVisionModel

    if (folder / OPEN_CLIP).is_file():
        return _read_open_clip(folder)
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in ("clip", "clip_vision_model", "vit"):
        raise StudyError(
            f"Expected BiomedCLIP ({OPEN_CLIP}) or a transformers CLIP or ViT model in {folder}, found type {kind}."
        )
    reader: Any = AutoModel if kind == "vit" else CLIPVisionModel
    model = reader.from_pretrained(folder, use_safetensors=True)
    return model.config, model.state_dict(), AutoImageProcessor.from_pretrained(folder)


def _read_open_clip(folder: Path) -> tuple[Any, Mapping[str, "torch.Tensor"], Any]:
    import torch
    from safetensors.torch import load_file
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    settings = json.loads((folder / OPEN_CLIP).read_text(encoding="utf-8"))
    tensors = folder / "open_clip_model.safetensors"
    if tensors.is_file():
        state = load_file(tensors)
    elif (folder / "open_clip_pytorch_model.bin").is_file():  # all that is published; read as tensors and nothing else
        state = torch.load(folder / "open_clip_pytorch_model.bin", map_location="cpu", weights_only=True, mmap=True)
    else:
        raise StudyError(f"Expected open_clip_pytorch_model.bin or {tensors.name} in {folder}, found neither.")
    config, tower = convert_trunk(state, heads=_heads(settings))
    colours = settings["preprocess_cfg"]
    edge = config.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": edge},
        crop_size={"height": edge, "width": edge},
        image_mean=colours["mean"],
        image_std=colours["std"],
    )
    return config, tower, processor


def _heads(settings: Mapping[str, Any]) -> int:
    """Attention heads of timm's model, which its tensors do not tell."""
    name = settings["model_cfg"]["vision_cfg"]["timm_model_name"]
    known = {"vit_small": 6, "vit_base": 12, "vit_large": 16}
    for start, heads in known.items():
        if name.startswith(f"{start}_patch"):
            return heads
    raise StudyError(f"Expected a timm tower among {', '.join(known)}, found {name}: take BiomedCLIP.")


def convert_trunk(state: Mapping[str, "torch.Tensor"], heads: int) -> tuple[Any, dict[str, "torch.Tensor"]]:
    """The vision trunk of an open_clip checkpoint (timm's ViT) as a transformers ViTModel without its pooler.

    Not as a CLIPVisionModel: that one normalises before its first block and has no bias on its patches, where timm's
    ViT does the opposite, and no weights make a layer norm an identity. ViTModel has the same layers in the same
    order; only the epsilon (1e-6) has to be told, and query, key and value to be cut apart.

    Args:
        state: the whole checkpoint; what is not the trunk (`OTHERS`: text tower, projection to the shared space, logit
            scale) is left out.
        heads: attention heads, 12 for ViT-B.

    Raises StudyError where a tensor is missing, left over or of another shape.
    """
    import torch
    from transformers import ViTModel

    strange = [name for name in state if not name.startswith((TRUNK, *OTHERS))]
    trunk = {name.removeprefix(TRUNK): tensor for name, tensor in state.items() if name.startswith(TRUNK)}
    needed = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    absent = [name for name, dims in needed.items() if name not in trunk or trunk[name].dim() != dims]
    if strange or absent:
        found = f"{min(strange)}, which is of no part of it" if strange else f"no {TRUNK}{absent[0]} as it ought to be"
        raise StudyError(f"Expected an open_clip checkpoint with a timm ViT, found {found}: take BiomedCLIP.")
    config = _trunk_config(trunk, heads)
    places = dict(_places(config.num_hidden_layers))
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in trunk.items():
        new = places.get(name, (name,))
        parts = tensor.chunk(len(new)) if len(new) > 1 else (tensor,)
        converted |= {place: part.contiguous() for place, part in zip(new, parts, strict=False)}
    with torch.device("meta"):
        model = ViTModel(config, add_pooling_layer=False)
    check_tensors(converted, {name: tuple(each.shape) for name, each in model.state_dict().items()}, "BiomedCLIP")
    return config, converted


def _trunk_config(trunk: Mapping[str, "torch.Tensor"], heads: int) -> Any:
    """Sizes as the tensors have them."""
    from transformers import ViTConfig

    width, channels, patch, _ = trunk["patch_embed.proj.weight"].shape
    return ViTConfig(
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[1] for name in trunk if name.startswith("blocks.")}),
        num_attention_heads=heads,
        intermediate_size=len(trunk["blocks.0.mlp.fc1.weight"]),
        image_size=round((trunk["pos_embed"].shape[1] - 1) ** 0.5) * patch,  # one position is the class token's
        patch_size=patch,
        num_channels=channels,
        layer_norm_eps=1e-6,
    )


def _places(depth: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each timm tensor's name with the one it gets here, or the three for query, key and value."""
    yield "cls_token", ("embeddings.cls_token",)
    yield "pos_embed", ("embeddings.position_embeddings",)
    for kind in ("weight", "bias"):
        yield f"patch_embed.proj.{kind}", (f"embeddings.patch_embeddings.projection.{kind}",)
        yield f"norm.{kind}", (f"layernorm.{kind}",)
        for layer in range(depth):
            old, new = f"blocks.{layer}", f"layers.{layer}"
            yield f"{old}.norm1.{kind}", (f"{new}.layernorm_before.{kind}",)
            yield f"{old}.norm2.{kind}", (f"{new}.layernorm_after.{kind}",)
            yield f"{old}.attn.qkv.{kind}", tuple(f"{new}.attention.{each}_proj.{kind}" for each in "qkv")
            yield f"{old}.attn.proj.{kind}", (f"{new}.attention.o_proj.{kind}",)
            yield f"{old}.mlp.fc1.{kind}", (f"{new}.mlp.fc1.{kind}",)
            yield f"{old}.mlp.fc2.{kind}", (f"{new}.mlp.fc2.{kind}",)
