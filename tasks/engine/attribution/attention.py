"""What an answer's tokens attend to in the text model, and how the answer's probability depends on that attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.engine.base import Base
from tasks.engine.batch import IGNORED, Example, collate
from tasks.engine.vision import Features

Layers = list[NDArray[np.float32]]
"""One array for each layer, the first layer first."""


@contextmanager
def eager(base: Base) -> Iterator[None]:
    """While open, attention is computed as written in the papers: only so are its weights to be had."""
    model = base.model
    used = {"": model.config._attn_implementation}
    used |= {name: getattr(model.config, name)._attn_implementation for name in model.config.sub_configs}
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(used)


@dataclass(frozen=True)
class Trace:
    """One prompt and its answer, gone through the text model once; `T` tokens, the answer's among them."""

    asked: int
    """Tokens of the prompt: the answer's token `n` is read off position `asked - 1 + n`."""
    log_probs: torch.Tensor
    """`(n,)`: of each answer token, given all before it."""
    weights: tuple[torch.Tensor, ...]
    """Attention of each layer, `(heads, T, T)`: row `i` is what position `i` takes from the others."""

    def attention(self) -> Layers:
        """Attention of each layer, `(heads, T, T)`."""
        return [_numpy(layer[0]) for layer in self.weights]

    def gradients(self, token: int) -> Layers:
        """How the log-probability of one answer token changes with each weight: as `attention`."""
        found = torch.autograd.grad(self.log_probs[token], self.weights, retain_graph=True, allow_unused=True)
        return [
            _numpy((torch.zeros_like(layer) if each is None else each)[0])
            for layer, each in zip(self.weights, found, strict=True)
        ]


def trace(base: Base, features: Features, example: Example) -> Trace:
    """Run a prompt and its answer through the model as it is, adapter included, keeping what gradients need.

    It holds all attention in memory: layers x heads x T x T numbers.
    """
    batch = collate(base, features, [example])
    # Where the base is frozen, nothing else may ask for gradients in the first layers.
    handle = base.model.get_input_embeddings().register_forward_hook(lambda _, __, made: made.requires_grad_())
    try:
        with eager(base), torch.enable_grad():
            made = base.model(**batch.inputs, use_cache=False, output_attentions=True)
            log_probs = made.logits[0, :-1].float().log_softmax(-1)
    finally:
        handle.remove()
    answered = batch.labels[0, 1:] != IGNORED
    told = log_probs[answered].gather(1, batch.labels[0, 1:][answered].unsqueeze(1)).squeeze(1)
    return Trace(len(example.prompt_ids), told, tuple(made.attentions))


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
