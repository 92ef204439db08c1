"""What each token of a prompt belongs to: which image, which text, or the chat format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.engine.base import Base
from tasks.engine.batch import conversation, expand, opening
from tasks.engine.prompt import Prompt
from tasks.engine.thumbnail import original
from tasks.engine.vision import Features

PARTS = ("query_image", "retrieved_images", "retrieved_text", "question", "format")
"""The parts of a prompt. `format` is everything else: marks of turns, system prompt, special tokens."""
QUERY_IMAGE, RETRIEVED_IMAGES, RETRIEVED_TEXT, QUESTION, FORMAT = range(len(PARTS))


@dataclass(frozen=True)
class Place:
    """One image of a prompt."""

    image_id: str
    start: int
    """Position of its first token."""
    rows: int
    columns: int
    retrieved: bool
    """Whether it belongs to a retrieved case; else it is the query image."""

    @property
    def positions(self) -> slice:
        """Positions of its tokens in the prompt, row by row."""
        return slice(self.start, self.start + self.rows * self.columns)


@dataclass(frozen=True)
class Layout:
    """The part that each token of a prompt belongs to, and the places of its images."""

    parts: NDArray[np.int8]
    """`(T,)`: index into PARTS."""
    places: tuple[Place, ...]
    """The images in the order of the prompt; the query image is the last."""


def layout(base: Base, features: Features, prompt: Prompt) -> Layout:
    """The layout of a prompt as `encode` tokenises it, in any family's format.

    To find the text of each turn, the conversation is written once more with marks around the text.
    """
    text, spans = _spans(base, prompt)
    encoding = base.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoding["input_ids"]
    kinds = [_kind(offset, spans) for offset in encoding["offset_mapping"]]
    order = list(range(len(prompt.image_ids)))  # the images' numbers, in the order of their placeholders
    numbered = [order.pop(0) if token == base.image_token_id else -1 for token in ids]
    start = [FORMAT] * len(opening(base))
    parts = np.array([*start, *expand(base, features, ids, kinds, prompt.image_ids)], dtype=np.int8)
    images = np.array([*(-1 for _ in start), *expand(base, features, ids, numbered, prompt.image_ids)])
    places = tuple(_places(features, prompt, images))
    for place in places:
        parts[place.positions] = RETRIEVED_IMAGES if place.retrieved else QUERY_IMAGE
    return Layout(parts, places)


def _places(features: Features, prompt: Prompt, images: NDArray[np.int_]) -> Iterator[Place]:
    last = len(prompt.image_ids) - 1
    for number, image_id in enumerate(prompt.image_ids):
        start = int(np.flatnonzero(images == number)[0])
        yield Place(original(image_id), start, *features.shape(image_id), retrieved=number < last)


def _spans(base: Base, prompt: Prompt) -> tuple[str, list[tuple[int, int, int]]]:
    """The conversation, and for each user text in it: first character, one past the last, and part."""
    texts = [part["text"] for message in prompt.messages for part in message["content"] if "text" in part]
    written = "".join(texts)
    first, last = [chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in written][:2]
    marked = conversation(base, [_marked(message, first, last) for message in prompt.messages])
    spans: list[tuple[int, int, int]] = []
    text = ""
    kinds = [RETRIEVED_TEXT] * (len(texts) - 1) + [QUESTION]
    for kind, piece in zip([None, *kinds], marked.split(first), strict=True):
        inside, _, after = piece.rpartition(last)
        if kind is not None:
            spans.append((len(text), len(text) + len(inside), kind))
        text += inside + after
    return text, spans


def _marked(message: dict[str, Any], first: str, last: str) -> dict[str, Any]:
    """The message with its text between two marks; outer blanks stay outside, since a format may drop them."""
    parts = []
    for part in message["content"]:
        if "text" in part:
            text = part["text"]
            core = text.strip()
            before = text[: len(text) - len(text.lstrip())]
            part = {**part, "text": f"{before}{first}{core}{last}{text[len(before) + len(core) :]}"}
        parts.append(part)
    return {**message, "content": parts}


def _kind(offset: Sequence[int], spans: Sequence[tuple[int, int, int]]) -> int:
    start, end = offset
    return next((kind for first, last, kind in spans if max(start, first) < min(end, last)), FORMAT)
