"""The loss on answer tokens only, with the vocabulary projection computed only there."""

import torch

from tasks.engine.base import Base
from tasks.engine.batch import IGNORED, Batch


def answer_logits(base: Base, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the answer tokens only, `(n, vocabulary)`, and those tokens, `(n,)`, row by row.

    The vocabulary projection is the largest product of a small model, and prompts are most of the tokens: hidden
    states are picked before it.
    """
    hidden = base.model.model(**batch.inputs, use_cache=False).last_hidden_state
    # The hidden state before a token predicts it.
    wanted = batch.labels[:, 1:] != IGNORED
    logits = base.model.lm_head(hidden[:, :-1][wanted])
    bound = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    if bound is not None:  # Gemma 2, PaliGemma 2's text model, bounds its logits after the projection
        logits = torch.tanh(logits / bound) * bound
    return logits, batch.labels[:, 1:][wanted]


def answer_loss(base: Base, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the batch's answer tokens."""
    logits, targets = answer_logits(base, batch)
    return torch.nn.functional.cross_entropy(logits.float(), targets)
