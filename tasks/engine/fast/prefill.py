"""Prompts gone through the model: the logits of what follows, and the keys and values that its tokens will look at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tasks.engine.base import Base
from tasks.engine.batch import Example, collate
from tasks.engine.fast.prefix import split
from tasks.engine.loss import last_layer_only, project
from tasks.engine.vision import Features


@dataclass
class Read:
    """What a batch of `B` rows has come to."""

    logits: torch.Tensor
    """`(B, vocabulary)`: of the token that follows each row."""
    cache: Any
    """Keys and values of all tokens, padding among them."""
    mask: torch.Tensor
    """`(B, T)`, 0 at padding."""
    places: torch.Tensor
    """`(B, 1)` or, of rotary positions in three dimensions, `(3, B, 1)`: where the token that follows will stand."""

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, `(B',)`; one may be there several times."""
        self.cache.batch_select_indices(rows)
        self.logits, self.mask, self.places = self.logits[rows], self.mask[rows], self.places[..., rows, :]

    def follow(self, base: Base, tokens: torch.Tensor) -> None:
        """Go on by one token in each row, `(B,)`."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        made = base.model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=self.mask,
            position_ids=self.places,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits, self.places = made.logits[:, -1], self.places + 1


def read_prompts(base: Base, features: Features, examples: Sequence[Example]) -> Read:
    """The prompts of a batch, what they begin with alike computed once where that pays."""
    parts = split(base, features, examples)
    if parts is None:
        return _read(base, features, examples)
    begun = _read(base, features, parts.beginnings)
    begun.select(torch.tensor(parts.whose, device=base.device))
    return _read(base, features, parts.rests, begun)


def _read(base: Base, features: Features, examples: Sequence[Example], begun: Read | None = None) -> Read:
    """The examples' prompts, as they are or each behind its row of what was read before."""
    inputs = collate(base, features, [replace(example, answer_ids=()) for example in examples]).inputs
    mask = inputs["attention_mask"]
    places = inputs.get("position_ids", mask.cumsum(1) - 1 + base.family.first_place)
    if begun is not None:
        places = places + begun.places
        inputs |= {"position_ids": places, "past_key_values": begun.cache}
        inputs["attention_mask"] = torch.cat([begun.mask, mask], dim=1)
    elif base.family.causal:  # padding is on the right, where nothing sees it: attention is fastest without a mask
        del inputs["attention_mask"]
    last = torch.nn.functional.one_hot(mask.sum(1) - 1, mask.shape[1]).bool()
    with last_layer_only(base, last):
        made = base.model.model(**inputs, use_cache=True)
    following = places.masked_fill(mask == 0, -1).amax(-1, keepdim=True) + 1
    if following.dim() == 3:  # behind an image, the dimension that reaches farthest counts
        following = following.amax(0, keepdim=True).expand(3, -1, -1)
    whole = mask if begun is None else inputs["attention_mask"]
    return Read(project(base, made.last_hidden_state[last]), made.past_key_values, whole, following)
