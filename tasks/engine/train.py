"""Training the adapter that is switched on, and its loss on held-out examples."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from tasks.engine.batch import IGNORED, Example, collate, shuffled
from tasks.engine.engine import Engine
from tasks.engine.loss import answer_loss
from tasks.engine.vision import Features


def train(
    engine: Engine,
    features: Features,
    examples: Sequence[Example],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    title: str = "training",
) -> tuple[float, int]:
    """Train the adapter on the examples with AdamW (gradient norm clipped at 1).

    Args:
        seed: order of the examples and dropout follow from it.
        title: shown beside the progress bar.

    Returns the mean loss per answer token over all steps, and the number of steps.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    parameters = engine.parameters()
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, foreach=True)
    total, tokens, steps = 0.0, 0, 0
    engine.peft.train()
    try:
        for _ in range(epochs):
            batches = shuffled(examples, batch_size, generator)
            for chosen in tqdm(batches, desc=title, unit="step", leave=False, disable=None):
                batch = collate(engine.base, features, chosen, answers=True)
                loss = answer_loss(engine.base, batch)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                count = int((batch.labels != IGNORED).sum())
                total, tokens, steps = total + float(loss.detach()) * count, tokens + count, steps + 1
    finally:
        engine.peft.eval()
        optimiser.zero_grad(set_to_none=True)
    return total / max(tokens, 1), steps


@torch.inference_mode()
def mean_loss(engine: Engine, features: Features, examples: Sequence[Example], batch_size: int) -> tuple[float, int]:
    """Mean loss per answer token of the adapter that is switched on, and the number of those tokens."""
    total, tokens = 0.0, 0
    for start in range(0, len(examples), batch_size):
        batch = collate(engine.base, features, examples[start : start + batch_size], answers=True)
        count = int((batch.labels != IGNORED).sum())
        total, tokens = total + float(answer_loss(engine.base, batch)) * count, tokens + count
    return total / max(tokens, 1), tokens
