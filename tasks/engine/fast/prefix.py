"""Where to cut the prompts of a batch so that their common beginnings are computed only once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from tasks.engine.base import Base
from tasks.engine.batch import Example
from tasks.engine.vision import Features

WORTH = 0.05
"""Least share of a batch's tokens worth saving: the beginnings cost a separate pass, and the rests a mask."""


@dataclass(frozen=True)
class Split:
    """A batch cut into beginnings, which rows may share, and the rest of each row."""

    beginnings: list[Example]
    whose: list[int]
    """Index of each row's beginning."""
    rests: list[Example]

    @property
    def tokens(self) -> int:
        """The number of tokens to compute, padding included."""
        return _padded(self.beginnings) + _padded(self.rests)


def split(base: Base, features: Features, examples: Sequence[Example]) -> Split | None:
    """The cheaper of two cuts: after the beginning that all rows share, or after each row's query image.

    None if too little is saved. Also None if tokens attend to later ones, since then the same beginning has different
    keys and values in each row.
    """
    if not base.family.causal:
        return None
    starts = [_image_starts(base, features, example) for example in examples]
    ways = [
        _split(examples, [_alike(examples, starts)] * len(examples), starts),
        _split(examples, [question_start(base, example) for example in examples], starts),
    ]
    whole = [way for way in ways if all(beginning.prompt_ids for beginning in way.beginnings)]
    best = min(whole, key=lambda way: way.tokens, default=None)
    return best if best and best.tokens <= (1 - WORTH) * _padded(examples) else None


def split_at_questions(base: Base, features: Features, examples: Sequence[Example]) -> Split | None:
    """The cut after each row's query image. None if tokens attend to later ones, or a prompt has no image."""
    places = [question_start(base, example) for example in examples]
    if not base.family.causal or not all(places):
        return None
    return _split(examples, places, [_image_starts(base, features, example) for example in examples])


def by_image(base: Base, examples: Sequence[Example]) -> list[int] | None:
    """An order of the examples that puts those together that are equal up to the question.

    None if this gives fewer than two examples per beginning on average, or if tokens attend to later ones. It helps
    without context, if images have several questions each.
    """
    begun = [(example.prompt_ids[: question_start(base, example)], example.image_ids) for example in examples]
    first = {each: place for place, each in reversed(list(enumerate(begun)))}
    if not base.family.causal or 2 * len(first) > len(examples):
        return None
    return sorted(range(len(examples)), key=lambda place: (first[begun[place]], len(examples[place])))


def question_start(base: Base, example: Example) -> int:
    """The place after the prompt's last image, where the question begins; 0 without an image."""
    ids = example.prompt_ids
    return len(ids) - ids[::-1].index(base.image_token_id) if base.image_token_id in ids else 0


def _split(examples: Sequence[Example], places: Sequence[int], starts: Sequence[list[int]]) -> Split:
    """Cut the examples at these places, and keep equal beginnings once."""
    found: dict[Example, int] = {}
    whose, rests = [], []
    for example, place, begun in zip(examples, places, starts, strict=True):
        images = sum(start < place for start in begun)
        beginning = Example(example.prompt_ids[:place], (), example.image_ids[:images])
        whose.append(found.setdefault(beginning, len(found)))
        rests.append(Example(example.prompt_ids[place:], (), example.image_ids[images:]))
    return Split(list(found), whose, rests)


def _alike(examples: Sequence[Example], starts: Sequence[list[int]]) -> int:
    """The number of first tokens, images included, that all examples share; each keeps at least one after them."""
    count = _common([example.prompt_ids for example in examples])
    images = _common([example.image_ids for example in examples])
    ends = [begun[images] for begun in starts if images < len(begun)]
    return min([count, *ends, *(len(example.prompt_ids) - 1 for example in examples)])


def _common(rows: Sequence[tuple[Any, ...]]) -> int:
    """The number of first items that all rows share."""
    return sum(1 for _ in takewhile(lambda items: len({*items}) == 1, zip(*rows, strict=False)))


def _image_starts(base: Base, features: Features, example: Example) -> list[int]:
    """The place of each image's first token."""
    starts, place = [], 0
    for image_id in example.image_ids:
        place = example.prompt_ids.index(base.image_token_id, place)
        starts.append(place)
        place += features.tokens(image_id)
    return starts


def _padded(examples: Sequence[Example]) -> int:
    return len(examples) * max(len(example.prompt_ids) for example in examples)
