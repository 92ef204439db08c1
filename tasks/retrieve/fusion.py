"""Gated fusion of image and question, after LightFED, trained to bring cases with the same answer together.

A gate weighs the projected image against the projected question, value by value. A fusion layer follows. Training is
contrastive (InfoNCE, arXiv 1807.03748, temperature 0.07) with two losses: a case against the rows of all answers, and
a case against other cases, where those with the same answer are positives (SupCon, arXiv 2004.11362). Cases of the same
image are neither positives nor negatives, so the fusion does not learn to find a case's image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.retrieve.rows import Rows
from tasks.retrieve.similarity import Encoder, Texts, hash_words

if TYPE_CHECKING:
    import torch

    State = Mapping[str, "torch.Tensor"]

WIDTH = 512
TEMPERATURE = 0.07
BATCH = 64
FUSION = "fusion.safetensors"


@dataclass(frozen=True)
class Fused:
    """A library's encoder, followed by a trained fusion of its two parts."""

    encoder: Encoder
    state: "State"

    def encode(self, images: Rows, questions: Texts) -> Rows:
        """Unit rows `(n, WIDTH)` of image features `(n, d)` and their questions."""
        return fuse(self.state, *self.fused_parts(images, questions))

    def parts(self, images: Rows, questions: Texts) -> tuple[Rows, Rows]:
        """Unit rows of the images alone and of the questions alone, before fusion."""
        return self.encoder.parts(images, questions)

    def fused_parts(self, images: Rows, questions: Texts) -> tuple[Rows, Rows]:
        """The fusion's inputs: image rows, and questions as encoded rows or as hashed words (same at all hospitals)."""
        if self.encoder.text_mean is not None:
            return self.encoder.parts(images, questions)
        return self.encoder.parts(images, questions)[0], hash_words([str(each) for each in questions])


@dataclass(frozen=True)
class Lessons:
    """A hospital's training cases, as input to the fusion's training."""

    images: Rows
    """Unit rows `(n, d)`."""
    texts: Rows
    """Unit rows of the questions, `(n, t)`."""
    answers: Rows
    """Unit rows of the distinct answers, `(m, t)`."""
    answer_of: Sequence[int]
    """Index of each case's answer in `answers`."""
    image_of: Sequence[int]
    """Number of each case's image."""


def initial_fusion(image_width: int, text_width: int, seed: int) -> dict[str, "torch.Tensor"]:
    """An initial fusion that about keeps similarities: random projections, an even gate, a zero fusion layer."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    # A random projection keeps inner products on average (Johnson and Lindenstrauss, 1984).
    image = torch.randn((WIDTH, image_width), generator=generator) / WIDTH**0.5
    text = torch.randn((WIDTH, text_width), generator=generator) / WIDTH**0.5
    return {
        "image.weight": image,
        "text.weight": text,
        "gate.weight": torch.zeros(WIDTH, 2 * WIDTH),
        "gate.bias": torch.zeros(WIDTH),
        "fusion.weight": torch.zeros(WIDTH, WIDTH),
        "answer.weight": text.clone(),
    }


def fuse(state: "State", images: Rows, texts: Rows) -> Rows:
    """Fuse unit rows of images `(n, d)` and of questions `(n, t)` into unit rows `(n, WIDTH)`."""
    import torch

    with torch.inference_mode():
        rows = _fused(state, torch.from_numpy(images), torch.from_numpy(texts))
    return np.ascontiguousarray(rows.numpy())


def _fused(state: "State", images: "torch.Tensor", texts: "torch.Tensor") -> "torch.Tensor":
    import torch

    image, text = images @ state["image.weight"].T, texts @ state["text.weight"].T
    gate = torch.sigmoid(torch.cat([image, text], dim=1) @ state["gate.weight"].T + state["gate.bias"])
    mixed = gate * image + (1 - gate) * text
    return torch.nn.functional.normalize(mixed + mixed @ state["fusion.weight"].T, dim=1)


def train_fusion(
    state: "State", lessons: Lessons, orders: Sequence[Sequence[int]], learning_rate: float
) -> tuple[dict[str, "torch.Tensor"], float, int]:
    """Train the fusion on one hospital's cases; return the new state, the last epoch's mean loss, and the steps.

    Args:
        state: the global state to start from; not modified.
        lessons: the hospital's cases.
        orders: an order of the cases for each epoch; all randomness is the caller's.
        learning_rate: of AdamW.
    """
    import torch

    trained = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=learning_rate)
    images, texts, answers = (torch.from_numpy(each) for each in (lessons.images, lessons.texts, lessons.answers))
    answer_of, image_of = torch.tensor(lessons.answer_of), torch.tensor(lessons.image_of)
    losses: list[float] = []
    for order in orders:
        losses = []
        for start in range(0, len(order), BATCH):
            batch = torch.tensor(order[start : start + BATCH])
            rows = _fused(trained, images[batch], texts[batch])
            loss = _answer_loss(trained, rows, answers, answer_of[batch])
            loss = loss + _case_loss(rows, answer_of[batch], image_of[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()) * len(batch))
    mean = sum(losses) / max(len(lessons.answer_of), 1)
    steps = sum(-(-len(order) // BATCH) for order in orders)
    return {name: tensor.detach() for name, tensor in trained.items()}, mean, steps


def _answer_loss(
    state: "State", rows: "torch.Tensor", answers: "torch.Tensor", answer_of: "torch.Tensor"
) -> "torch.Tensor":
    """InfoNCE of each case against the distinct answers in the batch, which include the case's answer."""
    import torch

    present, right = torch.unique(answer_of, return_inverse=True)
    targets = torch.nn.functional.normalize(answers[present] @ state["answer.weight"].T, dim=1)
    return torch.nn.functional.cross_entropy(rows @ targets.T / TEMPERATURE, right)


def _case_loss(rows: "torch.Tensor", answer_of: "torch.Tensor", image_of: "torch.Tensor") -> "torch.Tensor":
    """SupCon of each case against the batch's cases of other images; those with the same answer are positives."""
    others = image_of[:, None] != image_of[None]
    alike = others & (answer_of[:, None] == answer_of[None])
    found = alike.any(1)
    if not found.any():
        return rows.sum() * 0
    scores = (rows @ rows.T / TEMPERATURE).masked_fill(~others, float("-inf"))[found]
    chances = scores - scores.logsumexp(1, keepdim=True)
    return -(chances.masked_fill(~alike[found], 0).sum(1) / alike[found].sum(1)).mean()
