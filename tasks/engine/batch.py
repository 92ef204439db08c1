"""Tokenise prompts, and collate them into padded batches with the features of their images."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from tasks.engine.base import Base
from tasks.engine.families.family import Rows
from tasks.engine.prompt import Prompt
from tasks.engine.vision import Features

IGNORED = -100
Value = TypeVar("Value")
KEPT = 8192
"""Most tokenised prompts to keep. With a small model, each takes about 5 kB as Python integers."""


@dataclass(frozen=True)
class Example:
    """One tokenised prompt."""

    prompt_ids: tuple[int, ...]
    """The placeholder of each image is repeated once per image token."""
    answer_ids: tuple[int, ...]
    """The answer and the end-of-turn token. The loss is computed on these."""
    image_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True)
class Batch:
    """Tensors of some examples."""

    inputs: dict[str, Any]
    """Arguments of the model: ids and masks `(B, T)`, image features and their grids."""
    labels: torch.Tensor
    """`(B, T)`: the token at each answer position, IGNORED elsewhere."""


def encode(base: Base, features: Features, prompts: Sequence[Prompt]) -> list[Example]:
    """Tokenise prompts in the base's chat format; prompts seen before come from the base's cache."""
    keys = [_digest(features, prompt) for prompt in prompts]
    known = {key: base.tokenised[key] for key in keys if key in base.tokenised}
    new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
    known |= zip(new, _encode(base, features, list(new.values())), strict=True)
    if len(base.tokenised) + len(new) > KEPT:
        base.tokenised.clear()
    if len(new) <= KEPT:
        base.tokenised.update({key: known[key] for key in new})
    return [known[key] for key in keys]


def _digest(features: Features, prompt: Prompt) -> bytes:
    """Digest of everything that determines an example on one base."""
    sizes = [features.tokens(image_id) for image_id in prompt.image_ids]
    return hashlib.blake2b(repr((prompt, sizes)).encode(), digest_size=16).digest()


def _encode(base: Base, features: Features, prompts: Sequence[Prompt]) -> list[Example]:
    tokenizer, marks = base.tokenizer, ending_marks(base)
    texts = [conversation(base, prompt.messages, marks) for prompt in prompts]
    start = opening(base)
    prompt_ids = _token_ids(tokenizer, texts)
    answer_ids = answer_tokens(base, [prompt.answer for prompt in prompts], marks)
    return [
        Example((*start, *expand(base, features, ids, ids, prompt.image_ids)), tuple(answer), prompt.image_ids)
        for ids, answer, prompt in zip(prompt_ids, answer_ids, prompts, strict=True)
    ]


def answer_tokens(base: Base, answers: Sequence[str], marks: re.Pattern[str] | None = None) -> list[list[int]]:
    """The tokens of each answer, the end token last."""
    marks = marks or ending_marks(base)
    return _token_ids(base.tokenizer, [broken(answer, marks) + str(base.tokenizer.eos_token) for answer in answers])


def conversation(base: Base, messages: Sequence[Mapping[str, Any]], marks: re.Pattern[str] | None = None) -> str:
    """The text of a prompt in the base's format, with one placeholder per image; no user text can end a turn."""
    marks = marks or ending_marks(base)
    return base.family.text(base.tokenizer, base.config, [_plain_message(message, marks) for message in messages])


def opening(base: Base) -> list[int]:
    """The token before the text of the conversation, if the family has one."""
    first = base.tokenizer.bos_token_id
    return [first] if base.family.begins and first is not None else []


def ending_marks(base: Base) -> re.Pattern[str]:
    """Matches the tokenizer's special tokens, and the strings that end a turn in the family's format."""
    tokens = {*base.tokenizer.all_special_tokens, str(base.tokenizer.convert_ids_to_tokens(base.image_token_id))}
    tokens |= {*base.family.marks(base.tokenizer, base.config)}
    tokens |= {token.content for token in base.tokenizer.added_tokens_decoder.values() if token.special}
    marks = {token.strip() for token in tokens}
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True) if len(mark) > 1))


def broken(text: str, marks: re.Pattern[str]) -> str:
    """The text with every mark broken by a space: user text must not end a turn or ask for an image."""
    while marks.search(text):
        text = marks.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)
    return text


def _plain_message(message: Mapping[str, Any], marks: re.Pattern[str]) -> dict[str, Any]:
    parts = [part | {"text": broken(part["text"], marks)} if "text" in part else part for part in message["content"]]
    return {**message, "content": parts}


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def expand(
    base: Base, features: Features, ids: Sequence[int], values: Sequence[Value], image_ids: Sequence[str]
) -> Iterator[Value]:
    """Yield the value of each text token, and at a placeholder once for every token of its image."""
    images = iter(image_ids)
    for token, value in zip(ids, values, strict=True):
        yield from [value] * (features.tokens(next(images)) if token == base.image_token_id else 1)


def collate(base: Base, features: Features, examples: Sequence[Example]) -> Batch:
    """Pad examples (prompt and answer) on the right and stack them into one batch."""
    tokens = [torch.tensor([*example.prompt_ids, *example.answer_ids]) for example in examples]
    targets = [torch.tensor([*[IGNORED] * len(each.prompt_ids), *each.answer_ids]) for each in examples]
    # Any id but the image placeholder will do where the mask is 0; a placeholder would ask for features.
    ids = pad_sequence(tokens, batch_first=True, padding_value=base.tokenizer.pad_token_id)
    mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
    labels = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    names = [name for example in examples for name in example.image_ids]
    images = [found.to(base.device) for found in features.all_of(names)]
    if not features.projected:
        images = base.family.project(base.model, images)
    rows = Rows(ids, labels != IGNORED, tuple(images), tuple(features.grid(name) for name in names))
    inputs = {"input_ids": ids, "attention_mask": mask, **base.family.inputs(base.config, rows)}
    inputs = {name: each.to(base.device) if isinstance(each, torch.Tensor) else each for name, each in inputs.items()}
    return Batch(inputs, labels.to(base.device))


def shuffled(examples: Sequence[Example], batch_size: int, generator: torch.Generator) -> list[list[Example]]:
    """The batches of one epoch in random order.

    Within each group of eight batches, examples of similar length share a batch. This saves padding without sorting
    the whole epoch by length.
    """
    order = torch.randperm(len(examples), generator=generator).tolist()
    batches: list[list[Example]] = []
    for start in range(0, len(order), 8 * batch_size):
        group = sorted(order[start : start + 8 * batch_size], key=lambda index: len(examples[index]))
        batches += [[examples[i] for i in group[at : at + batch_size]] for at in range(0, len(group), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def within(lengths: Sequence[int], most: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Group the indices of examples so that each group has at most `most` tokens, padding included.

    Indices are taken in the given order, or shortest example first. A longer example gets a group to itself.
    """
    groups: list[list[int]] = []
    longest = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__) if order is None else order:
        longest = max(longest, lengths[place])
        if groups and (len(groups[-1]) + 1) * longest <= most:
            groups[-1].append(place)
        else:
            groups.append([place])
            longest = lengths[place]
    return groups
