"""Train a stage until the held-out loss stops falling, and keep the weights of its lowest value."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from tasks.engine.batch import Example, shuffled
from tasks.engine.train import add_gradients, mean_loss
from tasks.engine.trainable import Trainable
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.records import EpochLoss


def fit(
    trainable: Trainable,
    features: Features,
    training: Sequence[Example],
    held_out: Sequence[Example],
    *,
    epochs: int,
    patience: int,
    batch_size: int,
    tokens: int,
    learning_rate: float,
    seed: int,
    title: str,
) -> list[EpochLoss]:
    """Train with AdamW (constant rate, gradient norm clipped at 1), and switch to the weights of the best epoch.

    Args:
        features: cached features, or `Pixels` if tower or projector learns.
        epochs: most passes over the training examples.
        patience: stop after this many epochs without a lower held-out loss (early stopping, Prechelt 1998).
        batch_size: examples per optimiser step.
        tokens: most tokens in one forward pass, padding included.
        seed: seed for the order of the examples and for dropout.
        title: name of the stage in the rows and beside the progress bar.

    Returns a row for each epoch that was trained. Raises StudyError if a loss is not finite.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(trainable.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    rows: list[EpochLoss] = []
    best, best_epoch, kept = math.inf, 0, trainable.read()
    for epoch in range(1, epochs + 1):
        batches = shuffled(training, batch_size, generator)
        trained = _epoch(trainable, features, batches, optimiser, tokens, f"{title} {epoch}")
        held, _ = mean_loss(trainable, features, held_out, tokens)
        if not (math.isfinite(trained) and math.isfinite(held)):
            raise StudyError(
                f"Expected finite losses in stage {title!r}, found {trained} in training and {held} held out after "
                f"epoch {epoch}: lower the stage's learning_rate."
            )
        rows.append(EpochLoss(title, epoch, trained, held, kept=False))
        if held < best:
            best, best_epoch, kept = held, epoch, trainable.read()
        if epoch - best_epoch >= patience:
            break
    trainable.switch(kept)
    return [replace(row, kept=row.epoch == best_epoch) for row in rows]


def _epoch(
    trainable: Trainable,
    features: Features,
    batches: Sequence[Sequence[Example]],
    optimiser: torch.optim.Optimizer,
    tokens: int,
    title: str,
) -> float:
    """Train one pass over the batches; returns the mean loss per answer token during it."""
    total, answered = 0.0, 0
    trainable.base.model.train()
    try:
        for chosen in tqdm(batches, desc=title, unit="step", leave=False, disable=None):
            loss, count = add_gradients(trainable.base, features, chosen, tokens)
            torch.nn.utils.clip_grad_norm_(trainable.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            total, answered = total + loss, answered + count
    finally:
        trainable.base.model.eval()
    return total / answered
