"""Training rows in which prompts about one image share its tokens: their beginning once, the questions as branches.

Each token attends to the beginning and to its own branch, at the positions that it has in a row of its own. So the
loss is that of separate rows but for rounding, and an image with ten questions costs its tokens once, not ten times.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from tasks.engine.base import Base
from tasks.engine.batch import IGNORED, Batch, Example
from tasks.engine.families.family import Rows
from tasks.engine.fast.prefix import question_start
from tasks.engine.vision import Features

BRANCHES = 12
"""Most branches of one row: attention costs the square of a row's length."""

Row = Sequence[Example]
"""Examples that are alike up to the question: same tokens, same images."""


def rows_by_beginning(base: Base, examples: Sequence[Example], generator: torch.Generator) -> list[Row]:
    """All examples in rows of up to `BRANCHES` with the same beginning, examples and rows in random order.

    Where tokens attend to later ones, each example is a row of its own: the same beginning has different keys and
    values in each.
    """
    if not base.family.causal:
        return [[example] for example in _drawn(examples, generator)]
    alike: dict[tuple[Any, ...], list[Example]] = {}
    for example in _drawn(examples, generator):
        beginning = example.prompt_ids[: question_start(base, example)], example.image_ids
        alike.setdefault(beginning, []).append(example)
    rows = [found[at : at + BRANCHES] for found in alike.values() for at in range(0, len(found), BRANCHES)]
    return _drawn(rows, generator)


def steps_of_rows(rows: Iterable[Row], batch_size: int) -> list[list[Row]]:
    """The rows of each training step: as many as make at least `batch_size` examples; the last step has the rest."""
    steps: list[list[Row]] = []
    count = batch_size
    for row in rows:
        if count >= batch_size:
            steps.append([])
            count = 0
        steps[-1].append(row)
        count += len(row)
    return steps


def row_length(base: Base, row: Row) -> int:
    """The number of tokens of a row: its beginning once, and the rest of each example."""
    return _shared(base, row) + sum(len(example) - _shared(base, row) for example in row)


def collate_rows(base: Base, features: Features, rows: Sequence[Row]) -> Batch:
    """Stack rows into one batch, padded on the right; in causal families only, unless each row is one example."""
    shared = [_shared(base, row) for row in rows]
    ids = _padded([_joined(row, cut, _ids) for row, cut in zip(rows, shared, strict=True)], base.tokenizer.pad_token_id)
    labels = _padded([_joined(row, cut, _targets) for row, cut in zip(rows, shared, strict=True)], IGNORED)
    names = [name for row in rows for name in row[0].image_ids]
    images = [found.to(base.device) for found in features.all_of(names)]
    if not features.projected:
        images = base.family.project(base.model, images)
    grids = tuple(features.grid(name) for name in names)
    inputs = {
        "input_ids": ids,
        **base.family.inputs(base.config, Rows(ids, labels != IGNORED, tuple(images), grids)),
        "attention_mask": _visible(rows, shared, ids.shape[1]),
        "position_ids": _positions(base, features, rows, shared, ids.shape[1]),
    }
    inputs = {name: each.to(base.device) if isinstance(each, torch.Tensor) else each for name, each in inputs.items()}
    return Batch(inputs, labels.to(base.device))


def _visible(rows: Sequence[Row], shared: Sequence[int], width: int) -> torch.Tensor:
    """Which token sees which, `(B, 1, T, T)`: earlier ones of the beginning and of its own branch, and itself."""
    branch = torch.zeros(len(rows), width, dtype=torch.long)  # 0 is the beginning, -1 is padding
    for place, (row, cut) in enumerate(zip(rows, shared, strict=True)):
        lengths = torch.tensor([cut, *(len(example) - cut for example in row)])
        numbers = torch.arange(len(row) + 1).repeat_interleave(lengths)
        branch[place] = torch.nn.functional.pad(numbers, (0, width - len(numbers)), value=-1)
    own = branch[:, :, None] == branch[:, None, :]
    seen = own | (branch[:, None, :] == 0)
    return (seen & torch.ones(width, width, dtype=torch.bool).tril())[:, None]


def _positions(base: Base, features: Features, rows: Sequence[Row], shared: Sequence[int], width: int) -> torch.Tensor:
    """Position ids `(B, T)`, or `(3, B, T)` where a family counts in three dimensions, as in rows of their own."""
    alone = [example for row in rows for example in row]
    ids = _padded([torch.tensor(_ids(example)) for example in alone], base.tokenizer.pad_token_id)
    grids = tuple(features.grid(name) for example in alone for name in example.image_ids)
    given = base.family.inputs(base.config, Rows(ids, torch.zeros_like(ids, dtype=torch.bool), (), grids))
    plain = torch.arange(ids.shape[1]).expand(ids.shape) + base.family.first_place
    separate = iter(given.get("position_ids", plain).unbind(-2))
    joined = []
    for row, cut in zip(rows, shared, strict=True):
        own = [(next(separate), len(example)) for example in row]
        whole = torch.cat([own[0][0][..., :cut], *(places[..., cut:end] for places, end in own)], dim=-1)
        joined.append(torch.nn.functional.pad(whole, (0, width - whole.shape[-1])))
    return torch.stack(joined, dim=-2)


def _shared(base: Base, row: Row) -> int:
    """The number of tokens that a row computes once; none where it has a single example."""
    return question_start(base, row[0]) if len(row) > 1 else 0


def _joined(row: Row, cut: int, values: Any) -> torch.Tensor:
    """The beginning's values once, then those of each branch."""
    beginning = values(row[0])[:cut]
    return torch.tensor([*beginning, *(value for example in row for value in values(example)[cut:])])


def _ids(example: Example) -> tuple[int, ...]:
    return (*example.prompt_ids, *example.answer_ids)


def _targets(example: Example) -> tuple[int, ...]:
    return (*[IGNORED] * len(example.prompt_ids), *example.answer_ids)


def _padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value)


def _drawn(items: Sequence[Any], generator: torch.Generator) -> list[Any]:
    """The items in random order."""
    return [items[place] for place in torch.randperm(len(items), generator=generator).tolist()]
