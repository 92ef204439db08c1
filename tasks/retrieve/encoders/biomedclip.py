"""Loads BiomedCLIP (arXiv 2303.00915) from its open_clip checkpoint, with both towers as transformers classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.engine.families.composing import check_tensors
from tasks.engine.families.open_clip import convert_trunk, read_checkpoint
from tasks.errors import OURS, StudyError
from tasks.retrieve.encoders.encoder import DualEncoder

if TYPE_CHECKING:
    import PIL.Image
    import torch

TEXT = "text.transformer."
HEAD_WIDTH = 64
"""Width of an attention head in BERT of every size; the tensors do not show it."""
PROJECTIONS = ("visual.head.proj.weight", "text.proj.0.weight", "text.proj.2.weight")


def read_biomedclip(folder: Path, device: str = "cpu") -> DualEncoder:
    """Load both towers with their projections, converted tensor by tensor.

    An image's row is the projected class token of the ViT. A text's row is the class token of the BERT, projected by
    two layers with a GELU between them.

    Raises StudyError if a file is missing, or a tensor is missing, unexpected or has the wrong shape.
    """
    import torch
    from transformers import BertModel, ViTModel

    settings, state = read_checkpoint(folder)
    vision_config, vision_state = convert_trunk(state, settings.heads)
    text_config, text_state = convert_text(state)
    towers = [ViTModel(vision_config, add_pooling_layer=False), BertModel(text_config, add_pooling_layer=False)]
    for tower, tensors in zip(towers, (vision_state, text_state), strict=True):
        tower.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        tower.requires_grad_(False).eval().to(device)
    vision, text = towers
    head, inner, outer = (state[name].float().to(device) for name in PROJECTIONS)
    tokenizer = _tokenizer(folder)

    def see(pictures: Sequence["PIL.Image.Image"]) -> "torch.Tensor":
        edge = vision_config.image_size
        pixels = np.stack([preprocess(each, edge, settings.mean, settings.std) for each in pictures])
        found = vision(torch.from_numpy(pixels).to(device)).last_hidden_state[:, 0]
        return torch.nn.functional.linear(found, head)

    def read(texts: Sequence[str]) -> "torch.Tensor":
        tokens = tokenizer(
            list(texts), padding=True, truncation=True, max_length=settings.context, return_tensors="pt"
        ).to(device)
        found = text(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state[:, 0]
        hidden = torch.nn.functional.gelu(torch.nn.functional.linear(found, inner))
        return torch.nn.functional.linear(hidden, outer)

    return DualEncoder(see, read)


def preprocess(
    picture: "PIL.Image.Image", edge: int, mean: Sequence[float], std: Sequence[float]
) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Preprocess an RGB picture as open_clip does for evaluation: `(3, edge, edge)` float32.

    Scales the shorter side to `edge` (bicubic, the longer side rounded down), crops the centre (its offset rounded half
    to even), scales colours to 0 to 1, and standardises them by `mean` and `std`.
    """
    import PIL.Image

    width, height = picture.size
    short = min(width, height)
    size = (int(edge * width / short), int(edge * height / short))
    scaled = picture if size == picture.size else picture.resize(size, PIL.Image.Resampling.BICUBIC)
    left, top = round((size[0] - edge) / 2), round((size[1] - edge) / 2)
    pixels = np.asarray(scaled.crop((left, top, left + edge, top + edge)), np.float32) / np.float32(255)
    standard = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(standard.transpose(2, 0, 1))


def convert_text(state: Mapping[str, "torch.Tensor"]) -> tuple[Any, dict[str, "torch.Tensor"]]:
    """Convert the text tower of an open_clip checkpoint: config and tensors of a BertModel without its pooler.

    Raises StudyError if a tensor of the tower or of the projections is missing, unexpected or has the wrong shape.
    """
    import torch
    from transformers import BertConfig, BertModel

    text = {name.removeprefix(TEXT): tensor for name, tensor in state.items() if name.startswith(TEXT)}
    text.pop("embeddings.position_ids", None)  # a constant that older versions kept among the weights
    needed = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    tables = [text.get(f"embeddings.{name}.weight") for name in needed]
    first = text.get("encoder.layer.0.intermediate.dense.weight")
    if first is None or any(table is None for table in tables):
        raise StudyError("Expected an open_clip checkpoint with a BERT text tower, found none: take BiomedCLIP.")
    words, positions, types = (len(table) for table in tables if table is not None)
    width = first.shape[1]
    config = BertConfig(
        vocab_size=words,
        max_position_embeddings=positions,
        type_vocab_size=types,
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[2] for name in text if name.startswith("encoder.layer.")}),
        num_attention_heads=max(width // HEAD_WIDTH, 1),
        intermediate_size=len(first),
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    check_tensors(text, {name: tuple(each.shape) for name, each in model.state_dict().items()}, "BiomedCLIP's text")
    _check_projections(state, width)
    return config, text


def _check_projections(state: Mapping[str, "torch.Tensor"], width: int) -> None:
    """Check the projections: one linear layer after the image tower, two after the text tower, all without bias."""
    found = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(("visual.head.", "text.")) and not name.startswith(TEXT)
    }
    shared = len(state["visual.head.proj.weight"]) if "visual.head.proj.weight" in state else 0
    inner = len(state["text.proj.0.weight"]) if "text.proj.0.weight" in state else 0
    seen = state["visual.trunk.cls_token"].shape[-1]
    expected = dict(zip(PROJECTIONS, ((shared, seen), (inner, width), (shared, inner)), strict=True))
    check_tensors(found, expected, "BiomedCLIP's projections")


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, BertConfig

    try:
        # A config.json in the folder need not describe a model of transformers.
        return AutoTokenizer.from_pretrained(folder, config=BertConfig(), trust_remote_code=False)
    except OURS:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise StudyError(
            f"Expected BiomedCLIP's tokenizer in {folder} (tokenizer.json or vocab.txt), found one that does not load "
            f"({first}): download it again."
        ) from None
