"""An image-text encoder: an image tower and a text tower that share one embedding space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.records import Image

if TYPE_CHECKING:
    import PIL.Image
    import torch


@dataclass(frozen=True)
class DualEncoder:
    """A function that embeds pictures, and one that embeds texts, usually in the same space."""

    see: Callable[[Sequence["PIL.Image.Image"]], "torch.Tensor"]
    """Embeds `n` RGB pictures as `(n, d)`."""
    read: Callable[[Sequence[str]], "torch.Tensor"]
    """Embeds `n` texts as `(n, d)`; texts longer than the tower takes are truncated."""


def encode(encoder: DualEncoder, items: Sequence[Image | str], batch_size: int = 32) -> NDArray[np.float32]:
    """Encode images and texts as unit rows `(n, d)` float32, in the order given."""
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
