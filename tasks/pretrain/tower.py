"""Train a blank vision tower first, on direct labels, through linear heads that are then discarded.

Trained jointly from scratch, a tower and a text model stall at the prior of the answers for thousands of steps. So each
image token learns to predict its finding, size, row and column, and the mean token the image's modality and body part.
One more head reconstructs the token's pixels, so that the features also keep shapes that no label describes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from tasks.engine.base import Base
from tasks.records import Case, Finding, Image
from tasks.records.pixels import to_rgb

UNKNOWN = -100
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")


@dataclass(frozen=True)
class Labels:
    """Direct labels of `n` images on a grid of 3 x 3 tokens."""

    finding: torch.Tensor
    """`(n, 9)`: 0 if there is none."""
    size: torch.Tensor
    """`(n, 9)`: UNKNOWN if there is no finding."""
    modality: torch.Tensor
    """`(n,)`: UNKNOWN for an image without cases."""
    organ: torch.Tensor
    """`(n,)`: UNKNOWN for an image without cases."""


def label_images(images: Sequence[Image], cases: Sequence[Case], findings: Sequence[Finding]) -> Labels:
    """The labels of the images, in the order of the images."""
    names, sizes = _codes(f.name for f in findings), _codes(f.size for f in findings)
    modalities, organs = _codes(case.modality for case in cases), _codes(case.organ for case in cases)
    row = {image.id: index for index, image in enumerate(images)}
    finding = torch.zeros((len(images), 9), dtype=torch.long)
    size = torch.full((len(images), 9), UNKNOWN)
    for found in findings:
        height, side = found.position.split()
        cell = 3 * ROWS.index(height) + COLUMNS.index(side)
        finding[row[found.image_id], cell] = names[found.name] + 1
        size[row[found.image_id], cell] = sizes[found.size]
    modality, organ = torch.full((len(images),), UNKNOWN), torch.full((len(images),), UNKNOWN)
    for case in cases:
        modality[row[case.image_id]] = modalities[case.modality]
        organ[row[case.image_id]] = organs[case.organ]
    return Labels(finding, size, modality, organ)


def _codes(values: object) -> Mapping[str | None, int]:
    return {value: code for code, value in enumerate(sorted(set(values), key=str))}  # type: ignore[call-overload]


class Heads(nn.Module):
    """Linear heads on image tokens `(n, 9, width)`, discarded after training."""

    def __init__(self, width: int, labels: Labels, token_pixels: int) -> None:
        super().__init__()
        self.finding = nn.Linear(width, int(labels.finding.max()) + 1)
        self.size = nn.Linear(width, int(labels.size.max()) + 1)
        self.modality = nn.Linear(width, int(labels.modality.max()) + 1)
        self.organ = nn.Linear(width, int(labels.organ.max()) + 1)
        self.place = nn.Linear(width, 9)
        self.pixels = nn.Linear(width, token_pixels)

    def loss(self, tokens: torch.Tensor, labels: Labels, chosen: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """The weighted sum of all heads' losses on the chosen images."""
        place = torch.arange(9).expand(len(tokens), 9)
        whole = tokens.mean(1)
        return (
            _cross_entropy(self.finding(tokens), labels.finding[chosen])
            + 0.5 * _cross_entropy(self.size(tokens), labels.size[chosen])
            + 0.3 * _cross_entropy(self.modality(whole), labels.modality[chosen])
            + 0.3 * _cross_entropy(self.organ(whole), labels.organ[chosen])
            + 0.3 * _cross_entropy(self.place(tokens), place)
            + functional.mse_loss(self.pixels(tokens), pixels)
        )


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=UNKNOWN)


def train_tower(
    base: Base,
    images: Sequence[Image],
    labels: Labels,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> dict[str, float]:
    """Train the tower in place; returns the last epoch's accuracy of finding and size, at tokens with a finding.

    Args:
        images: square images, which the processor resizes to 3 x 3 tokens.
        labels: labels of the images, in the same order.
    """
    torch.manual_seed(seed)
    pixels = torch.from_numpy(np.stack([_patches(base, image) for image in images]))
    heads = Heads(base.model.config.vision_config.hidden_size, labels, _coarse(pixels[:1]).shape[-1])
    tower = base.model.model.visual.requires_grad_(True)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    for epoch in tqdm(range(epochs), desc="tower", unit="epoch", disable=None):
        right: dict[str, list[torch.Tensor]] = {"finding": [], "size": []}
        for chosen in torch.randperm(len(images)).split(batch_size):
            tokens = _tokens(base, pixels[chosen])
            loss = heads.loss(tokens, labels, chosen, _coarse(pixels[chosen]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            if epoch == epochs - 1:
                there = labels.size[chosen] != UNKNOWN
                for name, head in (("finding", heads.finding), ("size", heads.size)):
                    truth = getattr(labels, name)[chosen]
                    right[name].append((head(tokens).argmax(-1) == truth)[there])
    base.model.requires_grad_(False)
    return {name: float(torch.cat(hits).float().mean()) for name, hits in right.items()}


def _patches(base: Base, image: Image) -> np.ndarray:
    """The processor's patches of one image, `(36, patch values)` float32."""
    return np.asarray(
        base.image_processor(images=[to_rgb(image.data)], return_tensors="np")["pixel_values"], np.float32
    )


def _tokens(base: Base, pixels: torch.Tensor) -> torch.Tensor:
    """Run patches `(n, 36, patch values)` through the tower and its projector; returns `(n, 9, width)`."""
    grid = torch.tensor([[1, 6, 6]]).expand(len(pixels), 3)
    features = base.model.model.visual(pixels.flatten(0, 1), grid_thw=grid).pooler_output
    return features.reshape(len(pixels), 9, -1)


def _coarse(pixels: torch.Tensor) -> torch.Tensor:
    """The target of the pixel head: each token's pixels at half resolution, `(n, 9, 196)`."""
    count = len(pixels)
    # A patch is (channel, time, 14, 14). The image is gray and still, so one channel at one time is enough.
    gray = pixels.reshape(count, 36, 3, 2, 14, 14)[:, :, 0, 0]
    return functional.avg_pool2d(gray.flatten(0, 1)[:, None], 2).reshape(count, 9, -1)
