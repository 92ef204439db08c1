"""How likely the adapter that is switched on takes given answers to be."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from tasks.engine.batch import Example, collate, within
from tasks.engine.engine import Engine
from tasks.engine.loss import answer_logits
from tasks.engine.vision import Features


@torch.inference_mode()
def answer_probabilities(
    engine: Engine, features: Features, examples: Sequence[Example], tokens: int, title: str = "likelihood"
) -> list[list[float]]:
    """The probability of each token of each example's answer, given the prompt and the answer's tokens before it.

    `tokens` is the most tokens in one forward pass, padding included.
    """
    found: dict[int, list[float]] = {}
    groups = within([len(example) for example in examples], tokens)
    for chosen in tqdm(groups, desc=title, unit="batch", leave=False, disable=None):
        part = [examples[place] for place in chosen]
        logits, targets = answer_logits(engine.base, collate(engine.base, features, part))
        likely = logits.float().softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
        for place, each in zip(chosen, likely.split([len(example.answer_ids) for example in part]), strict=True):
            found[place] = each.tolist()
    return [found[place] for place in range(len(examples))]
