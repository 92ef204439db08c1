"""Train the adapter that is switched on, and compute its loss on held-out examples."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Literal

import torch

from tasks.engine.base import Base
from tasks.engine.batch import Batch, Example, collate, shuffled, within
from tasks.engine.engine import Engine
from tasks.engine.fast.tree import BRANCHES, Row, collate_rows, row_length, rows_by_beginning, steps_of_rows
from tasks.engine.loss import answer_loss
from tasks.engine.progress import Progress
from tasks.engine.trainable import Trainable
from tasks.engine.vision import Features
from tasks.store.checkpoints import Checkpoint

Correction = Callable[[Mapping[str, torch.nn.Parameter]], None]
"""Changes the gradients of the named parameters in place. It is called at each step, before clipping."""
Factor = Literal["A", "B"]
"""A factor of LoRA."""


def is_frozen(name: str, frozen: Factor | None) -> bool:
    """Whether a tensor of this name belongs to the frozen factor."""
    return frozen is not None and f".lora_{frozen}." in name


def train(
    engine: Engine,
    features: Features,
    examples: Sequence[Example],
    *,
    epochs: int,
    batch_size: int,
    tokens: int,
    learning_rate: float,
    seed: int,
    correct: Correction | None = None,
    frozen: Factor | None = None,
    by_image: bool = False,
    title: str = "training",
    checkpoint: Checkpoint | None = None,
) -> tuple[float, int]:
    """Train the adapter on the examples with AdamW (gradient norm clipped at 1).

    Args:
        batch_size: examples per optimiser step.
        tokens: most tokens in one forward pass, padding included. A larger step is split into micro steps, whose
            gradients are added up. Without dropout the adapter is the same; with it, the dropout draws differ.
        seed: seed for the order of the examples and for dropout.
        correct: a strategy's correction of the gradients.
        frozen: the factor of LoRA that stays as it is.
        by_image: a step has at least `batch_size` examples, and those that are alike up to the question share these
            tokens. Else it has single examples, drawn at random.
        title: shown beside the progress bar.
        checkpoint: where the training goes on from, and is kept from time to time.

    Returns the mean loss per answer token over all steps, and the number of steps.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    parameters = engine.named_parameters()
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=0.0, fused=True)
    plan = [rows for _ in range(epochs) for rows in steps(engine.base, examples, batch_size, generator, by_image)]
    progress = Progress(title, parameters, optimiser, checkpoint, correct)
    for name, parameter in parameters.items():
        parameter.requires_grad_(not is_frozen(name, frozen))
    engine.peft.train()
    try:
        for rows in progress.left(plan):
            progress.count(*add_gradients_of_rows(engine.base, features, rows, tokens))
            if correct:
                correct(parameters)
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    finally:
        engine.peft.eval()
        optimiser.zero_grad(set_to_none=True)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
    return progress.mean_loss, progress.taken


def steps(
    base: Base, examples: Sequence[Example], batch_size: int, generator: torch.Generator, by_image: bool
) -> list[list[Row]]:
    """The rows of each step of one epoch: a row has one example or, if `by_image`, several that begin alike."""
    if by_image:
        return steps_of_rows(rows_by_beginning(base, examples, generator), batch_size)
    return [[[example] for example in chosen] for chosen in shuffled(examples, batch_size, generator)]


def possible_steps(samples: int, epochs: int, batch_size: int, by_image: bool) -> range:
    """How many optimiser steps a training on this many examples can take.

    A step of whole images has at least `batch_size` examples, and fewer than another row of them more.
    """
    most = epochs * ceil(samples / batch_size)
    return range(epochs * ceil(samples / (batch_size + BRANCHES - 1)) if by_image else most, most + 1)


def add_gradients(base: Base, features: Features, chosen: Sequence[Example], most: int) -> tuple[float, int]:
    """As `add_gradients_of_rows`, with a row for each example."""
    return add_gradients_of_rows(base, features, [[example] for example in chosen], most)


def add_gradients_of_rows(base: Base, features: Features, rows: Sequence[Row], most: int) -> tuple[float, int]:
    """Add up the gradients of the mean loss per answer token, in micro steps of at most `most` tokens.

    Returns the loss summed over the answer tokens, and their number.
    """
    total, count = 0.0, sum(map(_answered, rows))
    for places in within([row_length(base, row) for row in rows], most):
        part = [rows[place] for place in places]
        # Each micro step's mean is weighted by its answer tokens, so that the sum is the mean of the whole step.
        weight = sum(map(_answered, part))
        loss = answer_loss(base, collated(base, features, part)) * (weight / count)
        loss.backward()
        total += float(loss.detach()) * count
    return total, count


def collated(base: Base, features: Features, rows: Sequence[Row]) -> Batch:
    """Rows as one batch: attention needs no mask where each has a single example."""
    if all(len(row) == 1 for row in rows):
        return collate(base, features, [row[0] for row in rows])
    return collate_rows(base, features, rows)


def _answered(row: Row) -> int:
    return sum(len(example.answer_ids) for example in row)


@torch.inference_mode()
def mean_loss(
    engine: Engine | Trainable, features: Features, examples: Sequence[Example], tokens: int
) -> tuple[float, int]:
    """Mean loss per answer token with the present weights, and the number of answer tokens.

    `tokens` is the most tokens in one forward pass, padding included.
    """
    total, answered = 0.0, 0
    for places in within([len(example) for example in examples], tokens):
        part = [examples[place] for place in places]
        count = sum(len(example.answer_ids) for example in part)
        total += float(answer_loss(engine.base, collate(engine.base, features, part))) * count
        answered += count
    return total / max(answered, 1), answered
