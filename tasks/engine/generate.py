"""Answering: batched greedy generation, with the same text as one by one, and the model's confidence."""

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
    """The model's answer to one question."""

    text: str
    confidence: float
    """Mean probability, from 0 to 1, that the model gave to the answer's tokens when it chose them.

    The end token counts too, so an empty answer has a confidence. An answer cut at the maximal length has no end
    token. Like all floating-point results, the last digits depend on the batch.
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
    """The adapter's greedy answer to each example, in the order of the examples.

    `tokens` is the most tokens in one batch, padding and answers included.
    """
    base, features = engine.base, features.fixed(name for example in examples for name in example.image_ids)
    # A batch holds prompts of similar length, to save padding, or prompts about the same image.
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
    """Most tokens in a batch; 1, hence one row a batch, if padding could push the start out of a sliding window."""
    window = getattr(base.config.get_text_config(), "sliding_window", None)
    return 1 if window and max(lengths, default=0) > window else tokens


def _greedy(base: Base, read: Read, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens up to the end of each row, then padding, and their probabilities; both `(B, n)`."""
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
    """The mean probability of each row's tokens up to and with its first end token; both `(B, T)`, T > 0."""
    ends = new == end
    counted = ends.cumsum(1) - ends.int() == 0  # no end before it
    return ((probabilities * counted).sum(1) / counted.sum(1)).clamp(0, 1).tolist()
