"""Train the text model on the frozen tower's cached features."""

import math
from collections.abc import Sequence

import torch
from tqdm import tqdm

from tasks.engine.base import Base
from tasks.engine.batch import Example
from tasks.engine.loss import answer_loss
from tasks.engine.train import collated, steps
from tasks.engine.vision import Features


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
) -> float:
    """Train the whole text model in place, on answer tokens only, with AdamW and a cosine schedule with warm-up.

    If `projector`, the base's projector learns too; `features` must then be the tower's own. If `by_image`, a step has
    at least `batch_size` examples, and the questions about one image share its tokens.

    Returns the mean loss over the last tenth of the steps.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = base.model
    model.model.language_model.requires_grad_(True)  # the output projection shares its embedding
    if projector:
        model.get_submodule(base.family.projector).requires_grad_(True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    plan = [rows for _ in range(epochs) for rows in steps(base, examples, batch_size, generator, by_image)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _cosine(step, len(plan)))
    losses: list[float] = []
    for rows in (bar := tqdm(plan, desc=title, unit="step", disable=None)):
        loss = answer_loss(base, collated(base, features, rows))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    model.requires_grad_(False)
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
