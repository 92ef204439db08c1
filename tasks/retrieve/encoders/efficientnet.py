"""EfficientNet-Lite0, pretrained on ImageNet and installed as a package, as an encoder of images."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.retrieve.encoders.encoder import DualEncoder

if TYPE_CHECKING:
    import PIL.Image
    import torch


def read_efficientnet(device: str = "cpu") -> DualEncoder:
    """Load the tower. An image's row is the mean of its 7 x 7 map, `(1280,)`; texts have no row.

    Raises StudyError if the package of the extra `real` is missing, or holds something else.
    """
    from transformers import EfficientNetModel

    from tasks.engine.families.smol_clip import VISION, convert_tower, image_processor, read_vision

    config, tensors = convert_tower(read_vision(VISION.path))
    tower = EfficientNetModel(config)
    tower.load_state_dict(tensors)
    tower.requires_grad_(False).eval().to(device)
    processor = image_processor()

    def see(pictures: Sequence["PIL.Image.Image"]) -> "torch.Tensor":
        pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(device)
        found: torch.Tensor = tower(pixels).last_hidden_state.mean((2, 3))
        return found

    def read(_: Sequence[str]) -> "torch.Tensor":
        raise ValueError("retrieval.text=encoder is refused with this encoder, so no text comes here")

    return DualEncoder(see, read)


def identify_efficientnet() -> str:
    """Identify the weights by their digest. Raises StudyError if the package is missing."""
    from tasks.engine.families.smol_clip import VISION

    with VISION.path.open("rb") as file:
        return f"{VISION.package}@{hashlib.file_digest(file, 'sha256').hexdigest()}"
