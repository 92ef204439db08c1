"""Image-text encoders: an image tower and a text tower with one space between them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.engine.families.open_clip import OPEN_CLIP
from tasks.errors import OURS, StudyError
from tasks.records import Image
from tasks.store import tree_digest

if TYPE_CHECKING:
    import PIL.Image
    import torch

BIOMEDCLIP = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
CONFIGS = {"clip": "config.json", "biomedclip": OPEN_CLIP}
"""What tells a folder of each kind."""
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True)
class DualEncoder:
    """What makes rows of pictures, and what makes rows of texts in the same space."""

    see: Callable[[Sequence["PIL.Image.Image"]], "torch.Tensor"]
    """`n` RGB pictures to `(n, d)`."""
    read: Callable[[Sequence[str]], "torch.Tensor"]
    """`n` texts to `(n, d)`; those of more tokens than the tower takes are cut off."""


def encode(encoder: DualEncoder, items: Sequence[Image | str], batch_size: int = 32) -> NDArray[np.float32]:
    """Images and texts in, unit rows `(n, d)` float32 out, in the order given."""
    import torch
    from tqdm import tqdm

    from tasks.records.pixels import to_rgb

    rows: dict[int, NDArray[np.float32]] = {}
    for kind, title in ((Image, "images"), (str, "texts")):
        places = [place for place, item in enumerate(items) if isinstance(item, kind)]
        starts = range(0, len(places), batch_size)
        for start in tqdm(starts, desc=f"encode {title}", unit="batch", leave=False, disable=None):
            batch = places[start : start + batch_size]
            with torch.inference_mode():
                chosen = [items[place] for place in batch]
                found = (
                    encoder.see([to_rgb(item.data) for item in chosen if isinstance(item, Image)])
                    if kind is Image
                    else encoder.read([item for item in chosen if isinstance(item, str)])
                )
                unit = torch.nn.functional.normalize(found.float(), dim=1)
            rows.update(zip(batch, unit.cpu().numpy(), strict=True))
    return np.stack([rows[place] for place in range(len(items))]) if items else np.zeros((0, 0), np.float32)


def locate(kind: str, name: str | None) -> Path:
    """The folder of an encoder: a local one, or its download from the hub.

    Raises StudyError where there is no such folder, and no hub that has it.
    """
    place = name or BIOMEDCLIP
    folder = Path(place)
    if folder.is_dir():
        if not (folder / CONFIGS[kind]).is_file():
            raise StudyError(f"Expected a {kind} model folder at {folder}, found no {CONFIGS[kind]} in it.")
        return folder
    import httpx
    from huggingface_hub import snapshot_download

    try:
        files = [*FILES, "open_clip_pytorch_model.bin"] if kind == "biomedclip" else list(FILES)
        return Path(snapshot_download(place, allow_patterns=files))
    except (OSError, ValueError, httpx.HTTPError):
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise StudyError(
            f"Expected retrieval.encoder_model to be a {kind} folder or hub id, found {place!r}, which is no folder "
            f"and could not be had from the hub{offline}: download it first and give its folder."
        ) from None


def identify_encoder(kind: str, name: str | None) -> str:
    """What tells an encoder's content: the digest of a local folder, or the commit of a hub model."""
    folder = locate(kind, name)
    return tree_digest(folder) if folder == Path(name or "") else f"{name or BIOMEDCLIP}@{folder.name}"


def open_encoder(kind: str, name: str | None, device: str) -> DualEncoder:
    """The encoder of this kind (`clip` or `biomedclip`), on the device `cpu` or `cuda`.

    Raises StudyError where the folder is missing, damaged, or holds a model of another kind.
    """
    from tasks.retrieve.encoders.biomedclip import read_biomedclip

    folder = locate(kind, name)
    return read_biomedclip(folder, device) if kind == "biomedclip" else read_clip(folder, device)


def read_clip(folder: Path, device: str = "cpu") -> DualEncoder:
    """A CLIP (arXiv 2103.00020) or SigLIP (arXiv 2303.15343) of transformers.

    Raises StudyError where the folder holds another model, or an incomplete one.
    """
    try:
        kind, model, tokenizer, image_processor = _read_parts(folder)
    except (StudyError, *OURS):
        raise
    except Exception as error:  # every library below has its own kinds
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
    """Model type, model, tokenizer and image processor; raises whatever the libraries raise."""
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
