"""Read BiomedCLIP as open_clip publishes it, and convert its vision tower, timm's ViT, to a transformers ViTModel."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.families.composing import check_tensors
from tasks.errors import OURS, StudyError

if TYPE_CHECKING:
    import torch

TRUNK = "visual.trunk."
OPEN_CLIP = "open_clip_config.json"
OTHERS = ("visual.head.", "text.", "logit_scale", "logit_bias")
WEIGHTS = "open_clip_model.safetensors"
PUBLISHED = "open_clip_pytorch_model.bin"


@dataclass(frozen=True)
class OpenClip:
    """The settings of an open_clip folder that cannot be read from its tensors."""

    heads: int
    """Attention heads of the vision tower."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Mean and standard deviation of each colour, from 0 to 1, for normalising pixels."""
    context: int
    """Most tokens in a text."""


def read_checkpoint(folder: Path) -> tuple[OpenClip, Mapping[str, "torch.Tensor"]]:
    """Configuration and all tensors of an open_clip folder.

    Raises StudyError if a file is missing or damaged, or if the vision tower is not a timm ViT.
    """
    import torch
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / OPEN_CLIP).read_text(encoding="utf-8"))
        if (folder / WEIGHTS).is_file():
            state = load_file(folder / WEIGHTS)
        else:  # the only published file; weights_only reads tensors and runs no code
            state = torch.load(folder / PUBLISHED, map_location="cpu", weights_only=True, mmap=True)
        name, colours = settings["model_cfg"]["vision_cfg"]["timm_model_name"], settings["preprocess_cfg"]
        mean, std = tuple(colours["mean"]), tuple(colours["std"])
        context = int(settings["model_cfg"].get("text_cfg", {}).get("context_length", 256))
    except OURS:
        raise
    except Exception as error:  # each reader raises its own kinds
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise StudyError(
            f"Expected an open_clip model in {folder} ({OPEN_CLIP}, and {WEIGHTS} or {PUBLISHED}), found one that does "
            f"not load ({first}): download it again."
        ) from None
    return OpenClip(_heads(name), mean, std, context), state


def read_open_clip(folder: Path) -> tuple[Any, Mapping[str, "torch.Tensor"], Any]:
    """Configuration, tensors and image processor of the vision tower in an open_clip folder.

    Raises StudyError if a file is missing or damaged, or holds another model.
    """
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    settings, state = read_checkpoint(folder)
    config, tower = convert_trunk(state, settings.heads)
    edge = config.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": edge},
        crop_size={"height": edge, "width": edge},
        image_mean=settings.mean,
        image_std=settings.std,
    )
    return config, tower, processor


def _heads(name: str) -> int:
    """Attention heads of a timm model, by its name: its tensors do not show them."""
    known = {"vit_small": 6, "vit_base": 12, "vit_large": 16}
    for start, heads in known.items():
        if name.startswith(f"{start}_patch"):
            return heads
    raise StudyError(f"Expected a timm tower among {', '.join(known)}, found {name}: take BiomedCLIP.")


def convert_trunk(state: Mapping[str, "torch.Tensor"], heads: int) -> tuple[Any, dict[str, "torch.Tensor"]]:
    """Convert the vision trunk of an open_clip checkpoint (timm's ViT) to a transformers ViTModel without pooler.

    CLIPVisionModel does not fit: unlike timm's ViT, it normalises before its first block and has no bias on its
    patches, and no weights turn a layer norm into an identity. ViTModel has the same layers in the same order. Only
    the epsilon (1e-6) must be set, and query, key and value split.

    Args:
        state: the whole checkpoint; parts other than the trunk (`OTHERS`: text tower, projection to the shared space,
            logit scale) are left out.
        heads: attention heads, 12 for ViT-B.

    Returns the configuration and the tensors. Raises StudyError if a tensor is missing, left over or of another shape.
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
    """A configuration with the sizes of the tensors."""
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
    """Each timm tensor's name with its name in transformers, or the three names for query, key and value."""
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
