"""The text model's attention for an answer, and the gradient of the answer's log-probability by it."""

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
"""One array per layer, first layer first."""


@contextmanager
def eager(base: Base) -> Iterator[None]:
    """While open, the model uses eager attention, the only implementation that returns attention weights."""
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
    """The result of one forward pass over a prompt and its answer, `T` tokens together."""

    prompt_length: int
    """Number of prompt tokens. Position `prompt_length - 1 + n` predicts the answer's token `n`."""
    log_probs: torch.Tensor
    """`(n,)`: log-probability of each answer token, given all tokens before it."""
    weights: tuple[torch.Tensor, ...]
    """Attention of each layer, `(1, heads, T, T)`. Row `i` holds the weights of all positions for position `i`."""

    def attention(self) -> Layers:
        """Attention of each layer, `(heads, T, T)`."""
        return [_numpy(layer[0]) for layer in self.weights]

    def gradients(self, token: int) -> Layers:
        """Gradient of one answer token's log-probability by each attention weight, in the shape of `attention`."""
        found = torch.autograd.grad(self.log_probs[token], self.weights, retain_graph=True, allow_unused=True)
        return [
            _numpy((torch.zeros_like(layer) if each is None else each)[0])
            for layer, each in zip(self.weights, found, strict=True)
        ]


def trace(base: Base, features: Features, example: Example) -> Trace:
    """Run a prompt and its answer through the model, adapter included, and keep what gradients need.

    All attention is in memory: layers x heads x T x T numbers.
    """
    batch = collate(base, features, [example])
    # With a frozen base, nothing else may require gradients in the first layers.
    handle = base.model.get_input_embeddings().register_forward_hook(lambda _, __, made: made.requires_grad_())
    try:
        with eager(base), torch.enable_grad():
            made = base.model(**batch.inputs, use_cache=False, output_attentions=True)
            log_probs = made.logits[0, :-1].float().log_softmax(-1)
    finally:
        handle.remove()
    answered = batch.labels[0, 1:] != IGNORED
    answer_log_probs = log_probs[answered].gather(1, batch.labels[0, 1:][answered].unsqueeze(1)).squeeze(1)
    return Trace(len(example.prompt_ids), answer_log_probs, tuple(made.attentions))


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
