"""Answering: batched greedy generation, the same text as one by one, and how sure the model is of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import LogitsProcessorList

from tasks.engine.batch import Example, collate, within
from tasks.engine.engine import Engine
from tasks.engine.loss import last_token_only
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
    tokenizer = engine.base.tokenizer
    # Prompts of like length share a batch, so that little is spent on padding.
    groups = within([len(example.prompt_ids) + max_new_tokens for example in examples], tokens)
    answers: dict[int, Answer] = {}
    for chosen in tqdm(groups, desc=title, unit="batch", leave=False, disable=None):
        batch = collate(engine.base, features, [examples[index] for index in chosen], answers=False)
        best: list[torch.Tensor] = []
        with last_token_only(engine.base):
            written = engine.base.model.generate(
                **batch.inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([_Notes(best)]),
            )
        new = written[:, batch.inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        sure = _confidences(new, torch.stack(best, dim=1), tokenizer.eos_token_id)
        answers |= zip(chosen, map(Answer, (text.strip() for text in texts), sure), strict=True)
    return [answers[index] for index in range(len(examples))]


class _Notes:
    """Keeps the probability of the likeliest token, `(B,)` for each new token: the whole vocabulary's is let go."""

    def __init__(self, best: list[torch.Tensor]) -> None:
        self.best = best

    def __call__(self, _: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        self.best.append((logits.amax(-1) - logits.logsumexp(-1)).exp())
        return logits


def _confidences(new: torch.Tensor, probabilities: torch.Tensor, end: int) -> list[float]:
    """The mean over each row's tokens up to its first end token; both `(B, T)`, T > 0."""
    ends = new == end
    counted = ends.cumsum(1) - ends.int() == 0  # no end before it
    return ((probabilities * counted).sum(1) / counted.sum(1)).clamp(0, 1).tolist()
