"""Answering: batched greedy generation, the same text as one by one."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from tasks.engine.batch import Example, collate, within
from tasks.engine.engine import Engine
from tasks.engine.loss import last_token_only
from tasks.engine.vision import Features


@torch.inference_mode()
def generate(
    engine: Engine,
    features: Features,
    examples: Sequence[Example],
    *,
    tokens: int,
    max_new_tokens: int,
    title: str = "answering",
) -> list[str]:
    """The adapter's greedy answer to each example, in their order.

    `tokens` is the most, padding and answers included, that the model holds at once.
    """
    tokenizer = engine.base.tokenizer
    # Prompts of like length share a batch, so that little is spent on padding.
    groups = within([len(example.prompt_ids) + max_new_tokens for example in examples], tokens)
    answers = [""] * len(examples)
    for chosen in tqdm(groups, desc=title, unit="batch", leave=False, disable=None):
        batch = collate(engine.base, features, [examples[index] for index in chosen], answers=False)
        with last_token_only(engine.base):
            written = engine.base.model.generate(
                **batch.inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = written[:, batch.inputs["input_ids"].shape[1] :]
        for index, text in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[index] = text.strip()
    return answers
