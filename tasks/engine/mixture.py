"""Mix the model's next-token distribution with that of the retrieved answers.

This is kNN-LM's interpolation (Khandelwal et al., arXiv 1911.00172), with whole retrieved answers as the memory: an
answer votes for its next token as long as the tokens generated so far are its first ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.engine.base import Base
from tasks.engine.batch import answer_tokens
from tasks.engine.prompt import Prompt


@dataclass(frozen=True)
class Mixture:
    """How much the retrieved answers count."""

    weight: float
    """Weight of the retrieved answers' distribution, from 0 to 1; the model's has the rest."""
    temperature: float
    """An answer's share is the softmax of similarity / temperature: the lower, the more the nearest decides."""


@dataclass(frozen=True)
class Memory:
    """The retrieved answers behind one prompt."""

    answers: tuple[tuple[int, ...], ...] = ()
    """Each answer's tokens, the end token last."""
    similarities: tuple[float, ...] = ()
    """The similarity of each answer's case to the question."""

    def following(self, written: Sequence[int], temperature: float) -> dict[int, float]:
        """The probability of each next token after those written; empty if no answer goes on from them."""
        shares = torch.softmax(torch.tensor(self.similarities, dtype=torch.float64) / temperature, 0).tolist()
        count, votes = len(written), dict[int, float]()
        for answer, share in zip(self.answers, shares, strict=True):
            if len(answer) > count and answer[:count] == tuple(written):
                votes[answer[count]] = votes.get(answer[count], 0.0) + share
        total = sum(votes.values())
        return {token: vote / total for token, vote in votes.items()} if total > 0 else {}


@dataclass(frozen=True)
class Mixing:
    """A mixture, and the retrieved answers of each prompt."""

    mixture: Mixture
    memories: tuple[Memory, ...]

    def of(self, places: Sequence[int]) -> "Mixing":
        """The same for some of the prompts."""
        return Mixing(self.mixture, tuple(self.memories[place] for place in places))

    def mixed(self, probabilities: torch.Tensor, written: Sequence[Sequence[int]]) -> torch.Tensor:
        """The mixture of the model's probabilities, `(prompts, vocabulary)`, with those of the retrieved answers.

        `written` holds each prompt's tokens so far. A prompt with no answer that goes on from them keeps the model's
        probabilities.
        """
        made, weight = probabilities.clone(), self.mixture.weight
        for row, (memory, tokens) in enumerate(zip(self.memories, written, strict=True)):
            if following := memory.following(tokens, self.mixture.temperature):
                made[row] *= 1 - weight
                made[row, list(following)] += weight * made.new_tensor(list(following.values()))
        return made


def mixing(base: Base, prompts: Sequence[Prompt], mixture: Mixture | None) -> Mixing | None:
    """What `generate` needs to mix the prompts' retrieved answers in; None without a mixture."""
    return Mixing(mixture, memories(base, prompts)) if mixture else None


def memories(base: Base, prompts: Sequence[Prompt]) -> tuple[Memory, ...]:
    """The retrieved answers behind each prompt, tokenised for a base."""
    answers = list(dict.fromkeys(answer for prompt in prompts for answer, _ in prompt.retrieved))
    tokens = dict(zip(answers, map(tuple, answer_tokens(base, answers)), strict=True))
    return tuple(
        Memory(
            tuple(tokens[answer] for answer, _ in prompt.retrieved),
            tuple(similarity for _, similarity in prompt.retrieved),
        )
        for prompt in prompts
    )
