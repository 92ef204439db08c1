"""Answering: batched greedy generation, the same text as one by one, and how sure the model is of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from tasks.engine.base import Base
from tasks.engine.batch import Example, within
from tasks.engine.engine import Engine
from tasks.engine.fast.prefill import Read, read_prompts
from tasks.engine.fast.prefix import by_image
from tasks.engine.vision import Features


@dataclass(frozen=True)
class Answer:
    """What the model answered."""

    text: str
    confidence: float
    """Mean probability, from 0 to 1, that the model gave to each of the answer's tokens when it chose it.

    The token that ends the answer counts too, so an empty answer has a confidence; one cut at its longest has none to
    count. As all floating-point figures it moves in its last digits with the batch that it was computed in.
    """


@torch.inference_mode()
def generate(
    engine: Engine,
    features: Features,
    examples: Sequence[Example],
    *,
    tokens: int,
    max_new_tokens: int,
    title: str = "answering",
) -> list[Answer]:
    """The adapter's greedy answer to each example, in their order.

    `tokens` is the most, padding and answers included, that the model holds at once.
    """
    base = engine.base
    # Prompts of like length share a batch, so that little is spent on padding; or those about one image.
    lengths = [len(example.prompt_ids) + max_new_tokens for example in examples]
    groups = within(lengths, _bound(base, lengths, tokens), by_image(base, examples))
    answers: dict[int, Answer] = {}
    for chosen in tqdm(groups, desc=title, unit="batch", leave=False, disable=None):
        new, likely = _greedy(base, read_prompts(base, features, [examples[index] for index in chosen]), max_new_tokens)
        texts = base.tokenizer.batch_decode(new, skip_special_tokens=True)
        sure = _confidences(new, likely, base.tokenizer.eos_token_id)
        answers |= zip(chosen, map(Answer, (text.strip() for text in texts), sure), strict=True)
    return [answers[index] for index in range(len(examples))]


def _bound(base: Base, lengths: Sequence[int], tokens: int) -> int:
    """Most tokens of a batch; none but one row where padding would push its beginning out of a sliding window."""
    window = getattr(base.config.get_text_config(), "sliding_window", None)
    return 1 if window and max(lengths, default=0) > window else tokens


def _greedy(base: Base, read: Read, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens up to each row's end, then padding, and the probability of each; both `(B, n)`."""
    end, filler = base.tokenizer.eos_token_id, base.tokenizer.pad_token_id
    ended = torch.zeros(len(read.mask), dtype=torch.bool, device=read.mask.device)
    new: list[torch.Tensor] = []
    likely: list[torch.Tensor] = []
    while True:
        logits = read.logits.float()
        likely.append((logits.amax(-1) - logits.logsumexp(-1)).exp())
        new.append(logits.argmax(-1).masked_fill(ended, filler))
        ended = ended | (new[-1] == end)
        if len(new) == most or ended.all():
            return torch.stack(new, dim=1), torch.stack(likely, dim=1)
        read.follow(base, new[-1])


def _confidences(new: torch.Tensor, probabilities: torch.Tensor, end: int) -> list[float]:
    """The mean over each row's tokens up to its first end token; both `(B, T)`, T > 0."""
    ends = new == end
    counted = ends.cumsum(1) - ends.int() == 0  # no end before it
    return ((probabilities * counted).sum(1) / counted.sum(1)).clamp(0, 1).tolist()
