"""Finds an encoder's files: a local folder, or a download from the hub."""

import os
from pathlib import Path

from tasks.engine.families.open_clip import OPEN_CLIP
from tasks.errors import StudyError
from tasks.store import tree_digest

BIOMEDCLIP = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


CONFIGS = {"clip": "config.json", "biomedclip": OPEN_CLIP}
"""The file that a folder of each kind must contain."""


FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


def locate(kind: str, name: str | None) -> Path:
    """The folder of an encoder: a local folder, or its download from the hub.

    Raises StudyError if there is neither, or if the local folder lacks the kind's config file.
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
    """Identify an encoder's content: the digest of a local folder, or the name and commit of a hub model.

    Raises StudyError as `locate`.
    """
    folder = locate(kind, name)
    return tree_digest(folder) if folder == Path(name or "") else f"{name or BIOMEDCLIP}@{folder.name}"
