"""Prefill: run prompts through the model, for the logits of the next token and the cache of keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tasks.engine.base import Base
from tasks.engine.batch import Example, collate
from tasks.engine.fast.beginnings import Beginning, Beginnings, joined, parted
from tasks.engine.fast.prefix import split, split_at_questions
from tasks.engine.loss import last_layer_only, project
from tasks.engine.vision import Features


@dataclass
class Read:
    """The state of a batch of `B` rows after the tokens so far."""

    logits: torch.Tensor
    """`(B, vocabulary)`: for the next token of each row."""
    cache: Any
    """Keys and values of all tokens, padding included."""
    mask: torch.Tensor
    """`(B, T)`, 0 at padding."""
    places: torch.Tensor
    """Position of each row's next token: `(B, 1)`, or `(3, B, 1)` for rotary positions in three dimensions."""

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, `(B',)`; a row may occur several times."""
        self.cache.batch_select_indices(rows)
        self.logits, self.mask, self.places = self.logits[rows], self.mask[rows], self.places[..., rows, :]

    def follow(self, base: Base, tokens: torch.Tensor) -> None:
        """Append one token to each row, `(B,)`, and compute the logits after it."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        made = base.model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=self.mask,
            position_ids=self.places,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits, self.places = made.logits[:, -1], self.places + 1


def read_prompts(
    base: Base, features: Features, examples: Sequence[Example], beginnings: Beginnings | None = None
) -> Read:
    """Run the prompts of a batch; common beginnings are computed once if that pays.

    With `beginnings`, each prompt's part up to the question is kept there, and taken from there.
    """
    parts = split(base, features, examples) if beginnings is None else split_at_questions(base, features, examples)
    if parts is None:
        return _read(base, features, examples)
    begun = (
        _read(base, features, parts.beginnings)
        if beginnings is None
        else _begin(base, features, parts.beginnings, beginnings)
    )
    begun.select(torch.tensor(parts.whose, device=base.device))
    return _read(base, features, parts.rests, begun)


def _begin(base: Base, features: Features, wanted: Sequence[Example], beginnings: Beginnings) -> Read:
    """As `_read`, of which only what is not kept is computed, and kept; its logits are empty."""
    kept = {example: beginnings.get(example) for example in wanted}
    new = [example for example, each in kept.items() if each is None]
    found: dict[Example, Beginning] = {example: each for example, each in kept.items() if each is not None}
    if new:
        begun = _read(base, features, new)
        made = parted(begun.cache, [len(each.prompt_ids) for each in new], begun.places)
        if made is None:
            return begun if len(new) == len(wanted) else _read(base, features, wanted)
        for example, each in zip(new, made, strict=True):
            found[example] = each
            beginnings.put(example, each)
    cache, mask, places = joined([found[example] for example in wanted])
    return Read(torch.empty(len(wanted), 0, device=base.device), cache, mask, places)


def _read(base: Base, features: Features, examples: Sequence[Example], begun: Read | None = None) -> Read:
    """Run the examples' prompts, alone or each after its row of `begun`."""
    inputs = collate(base, features, [replace(example, answer_ids=()) for example in examples]).inputs
    mask = inputs["attention_mask"]
    places = inputs.get("position_ids", mask.cumsum(1) - 1 + base.family.first_place)
    if begun is not None:
        places = places + begun.places
        inputs |= {"position_ids": places, "past_key_values": begun.cache}
        inputs["attention_mask"] = torch.cat([begun.mask, mask], dim=1)
    elif base.family.causal:  # padding is on the right, where no token sees it; attention is fastest without a mask
        del inputs["attention_mask"]
    last = torch.nn.functional.one_hot(mask.sum(1) - 1, mask.shape[1]).bool()
    with last_layer_only(base, last):
        made = base.model.model(**inputs, use_cache=True)
    following = places.masked_fill(mask == 0, -1).amax(-1, keepdim=True) + 1
    if following.dim() == 3:  # after an image, the next position follows the largest of the three dimensions
        following = following.amax(0, keepdim=True).expand(3, -1, -1)
    whole = mask if begun is None else inputs["attention_mask"]
    return Read(project(base, made.last_hidden_state[last]), made.past_key_values, whole, following)
