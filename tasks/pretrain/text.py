"""Train the text model on the frozen tower's cached features."""

import math
from collections.abc import Sequence

import torch

from tasks.engine.base import Base
from tasks.engine.batch import Example
from tasks.engine.loss import answer_loss
from tasks.engine.progress import Progress
from tasks.engine.train import collated, steps
from tasks.engine.vision import Features
from tasks.store.checkpoints import Checkpoint


def train_text(
    base: Base,
    features: Features,
    examples: Sequence[Example],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    title: str,
    projector: bool = False,
    by_image: bool = False,
    checkpoint: Checkpoint | None = None,
) -> float:
    """Train the whole text model in place, on answer tokens only, with AdamW and a cosine schedule with warm-up.

    If `projector`, the base's projector learns too; `features` must then be the tower's own. If `by_image`, a step has
    at least `batch_size` examples, and the questions about one image share its tokens. From `checkpoint` it goes on.

    Returns the mean loss over the last tenth of the steps.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = base.model
    model.model.language_model.requires_grad_(True)  # the output projection shares its embedding
    if projector:
        model.get_submodule(base.family.projector).requires_grad_(True)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=0.01)
    plan = [rows for _ in range(epochs) for rows in steps(base, examples, batch_size, generator, by_image)]
    last = len(plan) - max(1, len(plan) // 10)
    progress = Progress(title, parameters, optimiser, checkpoint)
    for rows in progress.left(plan):
        optimiser.param_groups[0]["lr"] = learning_rate * _cosine(progress.taken, len(plan))
        loss = answer_loss(base, collated(base, features, rows))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if progress.taken >= last:
            progress.count(float(loss.detach()), 1)
    model.requires_grad_(False)
    return progress.mean_loss


def _cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
