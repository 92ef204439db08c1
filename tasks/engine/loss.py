"""The loss on answer tokens only, without computing the end of the last layer at other tokens."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tasks.engine.base import Base
from tasks.engine.batch import IGNORED, Batch


def answer_logits(base: Base, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the answer tokens only, `(n, vocabulary)`, and those tokens, `(n,)`, row by row.

    Hidden states are picked before the vocabulary projection: it is the largest product of a small model, and most
    tokens belong to prompts.
    """
    inputs = batch.inputs
    if base.family.causal and inputs["attention_mask"].dim() == 2:
        # Padding is on the right, where no token sees it, and attention is fastest without a mask.
        inputs = {name: value for name, value in inputs.items() if name != "attention_mask"}
    # The hidden state before a token predicts it.
    wanted = batch.labels.roll(-1, dims=1) != IGNORED
    with last_layer_only(base, wanted):
        hidden = base.model.model(**inputs, use_cache=False).last_hidden_state
    return project(base, hidden[wanted]), batch.labels[batch.labels != IGNORED]


def project(base: Base, hidden: torch.Tensor) -> torch.Tensor:
    """Logits `(n, vocabulary)` of hidden states `(n, d)`."""
    logits: torch.Tensor = base.model.lm_head(hidden)
    bound = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    if bound is not None:  # Gemma 2, PaliGemma 2's text model, bounds its logits after the projection
        logits = torch.tanh(logits / bound) * bound
    return logits


@contextmanager
def last_layer_only(base: Base, wanted: torch.Tensor) -> Iterator[None]:
    """While open, the last layer computes what follows attention only at the wanted tokens.

    `wanted` is `(B, T)`, True at these tokens. No later step uses the hidden states of the others.
    """

    def pick(_: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (given[0][wanted],)

    def put(_: torch.nn.Module, __: object, made: torch.Tensor) -> torch.Tensor:
        whole = made.new_zeros(*wanted.shape, made.shape[-1])
        whole[wanted] = made
        return whole

    last = base.model.model.language_model.layers[-1]
    parts = (last.self_attn.o_proj, last.mlp)
    handles = [part.register_forward_pre_hook(pick) for part in parts]
    handles += [part.register_forward_hook(put) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answer_loss(base: Base, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the batch's answer tokens."""
    logits, targets = answer_logits(base, batch)
    return torch.nn.functional.cross_entropy(logits.float(), targets)
