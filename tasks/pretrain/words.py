"""Teach a base further words: its tokenizer's vocabulary goes on where it ended, and so do its embeddings."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from tasks.engine.base import Base

Pair = tuple[str, str]
RARE = 3
"""Pieces that stand side by side less often than this are not joined."""


def further_merges(tokenizer: Tokenizer, texts: Iterable[str], most: int) -> list[Pair]:
    """The next merges of a byte-level BPE tokenizer, by its own rule: the most frequent neighbours are joined first.

    Byte pair encoding after Sennrich, Haddow and Birch (2016), continued on other texts. `tokenizers` trains a
    vocabulary from nothing only, which would give every token another number.

    Args:
        tokenizer: the tokenizer to continue. It is not changed.
        texts: texts in which pairs are counted.
        most: the largest number of merges. There are fewer once no pair occurs RARE times.

    Pairs of equal frequency are ordered by their text.
    """
    counts = Counter(word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    pieces = {word: [token.value for token in tokenizer.model.tokenize(word)] for word in counts}
    merges: list[Pair] = []
    while len(merges) < most:
        pairs: Counter[Pair] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        best = max(pairs.items(), key=lambda item: (item[1], item[0]), default=None)
        if best is None or best[1] < RARE:
            break
        merges.append(best[0])
        pieces = {word: _join(parts, best[0]) for word, parts in pieces.items()}
    return merges


def _join(parts: list[str], pair: Pair) -> list[str]:
    """A word's pieces after one merge, from left to right."""
    if pair[0] not in parts:
        return parts
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def learn_words(base: Base, texts: Iterable[str], vocabulary: int) -> Base:
    """The base with up to `vocabulary` tokens; those that it has keep their number, meaning and text.

    A new token begins as the mean of the two that it joins: a text means at first about what it meant in pieces.
    """
    core = base.tokenizer.backend_tokenizer
    merges = further_merges(core, texts, vocabulary - len(base.tokenizer))
    written = json.loads(core.to_str())
    numbers = written["model"]["vocab"]
    parents = []
    for left, right in merges:
        if left + right not in numbers:  # two ways of cutting a word may end in the same token
            parents.append((numbers[left], numbers[right]))
            numbers[left + right] = len(numbers)
        written["model"]["merges"].append([left, right])
    _grow(base.model, parents)
    tokenizer = _rebuilt(base.tokenizer, Tokenizer.from_str(json.dumps(written)))
    return Base(base.model, tokenizer, base.image_processor, base.image_token_id)


def _grow(model: Any, parents: Sequence[tuple[int, int]]) -> None:
    """Append a row to the embeddings, which are the output projection too, for each pair of parents."""
    before = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(before + len(parents), mean_resizing=False)
    rows = model.get_input_embeddings().weight.data
    for number, (left, right) in enumerate(parents, before):
        rows[number] = (rows[left] + rows[right]) / 2


def _rebuilt(tokenizer: Qwen2Tokenizer, core: Tokenizer) -> Qwen2Tokenizer:
    """A tokenizer of the same kind, special tokens and chat format with another core."""
    ends = (tokenizer.eos_token, tokenizer.pad_token)
    rebuilt = Qwen2Tokenizer(
        tokenizer_object=core,
        unk_token=None,
        bos_token=None,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        additional_special_tokens=[token for token in tokenizer.all_special_tokens if token not in ends],
    )
    rebuilt.chat_template = tokenizer.chat_template
    return rebuilt
