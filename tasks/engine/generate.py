"""Answering: batched greedy generation, with the same text as one by one, and the model's confidence."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from tasks.engine.base import Base
from tasks.engine.batch import Example, within
from tasks.engine.engine import Engine
from tasks.engine.fast.beginnings import Beginnings
from tasks.engine.fast.prefill import Read, read_prompts
from tasks.engine.fast.prefix import by_image
from tasks.engine.mixture import Mixing
from tasks.engine.vision import Features

Choice = Callable[[torch.Tensor, Sequence[torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]
"""From logits `(B, vocabulary)` and the tokens so far, `(B,)` each, the next tokens and their probabilities."""


@dataclass(frozen=True)
class Answer:
    """The model's answer to one question."""

    text: str
    confidence: float
    """Mean probability, from 0 to 1, that the answer's tokens had when they were chosen.

    It is the model's, or the mixture's if retrieved answers are mixed in. The end token counts too, so an empty answer
    has a confidence. An answer cut at the maximal length has no end token. Like all floating-point results, the last
    digits depend on the batch.
    """


@dataclass(frozen=True)
class Heard:
    """An answer so far."""

    text: str
    total: float
    """Sum of its tokens' probabilities: the confidence is at least this divided by the most tokens of an answer."""


@dataclass(frozen=True)
class Watch:
    """Follows answers while they are generated."""

    followed: frozenset[int]
    """Indices of the examples whose answers are told."""
    hear: Callable[[Mapping[int, Heard]], Collection[int]]
    """Called after each token of a batch with those of its answers that are followed and not yet ended; gives the
    indices of examples, followed or not, whose answers nobody waits for any more: these end there."""


@torch.inference_mode()
def generate(
    engine: Engine,
    features: Features,
    examples: Sequence[Example],
    *,
    tokens: int,
    max_new_tokens: int,
    title: str = "answering",
    mixing: Mixing | None = None,
    beginnings: Beginnings | None = None,
    watch: Watch | None = None,
) -> list[Answer]:
    """The adapter's greedy answer to each example, in the order of the examples.

    Args:
        tokens: most tokens in one batch, padding and answers included.
        max_new_tokens: longest answer, in tokens.
        title: shown beside the progress bar.
        mixing: mixes each next-token distribution with that of the example's retrieved answers.
        beginnings: keeps what prompts begin with for the next call with the same adapter.
        watch: follows the answers, and may end them.
    """
    base, features = engine.base, features.fixed(name for example in examples for name in example.image_ids)
    # A batch holds prompts of similar length, to save padding, or prompts about the same image.
    lengths = [len(example.prompt_ids) + max_new_tokens for example in examples]
    groups = within(lengths, _bound(base, lengths, tokens), by_image(base, examples))
    answers: dict[int, Answer] = {}
    for chosen in tqdm(groups, desc=title, unit="batch", leave=False, disable=None):
        choose = _Mixed(mixing.of(chosen)) if mixing else _likeliest
        read = read_prompts(base, features, [examples[index] for index in chosen], beginnings)
        new, likely = _greedy(base, read, max_new_tokens, choose, _Following(base, watch, chosen) if watch else None)
        texts = base.tokenizer.batch_decode(new, skip_special_tokens=True)
        sure = _confidences(new, likely, base.tokenizer.eos_token_id)
        answers |= zip(chosen, map(Answer, (text.strip() for text in texts), sure), strict=True)
    return [answers[index] for index in range(len(examples))]


def _bound(base: Base, lengths: Sequence[int], tokens: int) -> int:
    """Most tokens in a batch; 1, hence one row a batch, if padding could push the start out of a sliding window."""
    window = getattr(base.config.get_text_config(), "sliding_window", None)
    return 1 if window and max(lengths, default=0) > window else tokens


@dataclass(frozen=True)
class _Following:
    """A watch over one batch."""

    base: Base
    watch: Watch
    chosen: Sequence[int]
    """Index of each row's example."""

    def unwanted(self, new: torch.Tensor, likely: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
        """Tell of the rows that are not over, `(B,)`, and get those to be ended; `new` and `likely` are `(B, n)`."""
        rows = [row for row, index in enumerate(self.chosen) if index in self.watch.followed and not over[row]]
        texts = self.base.tokenizer.batch_decode(new[rows], skip_special_tokens=True) if rows else []
        totals = likely[rows].sum(1).tolist()
        heard = {
            self.chosen[row]: Heard(text.strip(), total) for row, text, total in zip(rows, texts, totals, strict=True)
        }
        gone = self.watch.hear(heard)
        return torch.tensor([index in gone for index in self.chosen], device=new.device)


def _greedy(
    base: Base, read: Read, most: int, choose: Choice, following: _Following | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens up to the end of each row, then padding, and their probabilities; both `(B, n)`."""
    end, filler = base.tokenizer.eos_token_id, base.tokenizer.pad_token_id
    ended = torch.zeros(len(read.mask), dtype=torch.bool, device=read.mask.device)
    new: list[torch.Tensor] = []
    likely: list[torch.Tensor] = []
    while True:
        tokens, probabilities = choose(read.logits.float(), new)
        likely.append(probabilities)
        new.append(tokens.masked_fill(ended, filler))
        if following:
            ended = ended | following.unwanted(torch.stack(new, dim=1), torch.stack(likely, dim=1), ended)
        ended = ended | (new[-1] == end)
        if len(new) == most or ended.all():
            return torch.stack(new, dim=1), torch.stack(likely, dim=1)
        read.follow(base, new[-1])


def _likeliest(logits: torch.Tensor, _: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's likeliest next token and its probability; both `(B,)`."""
    return logits.argmax(-1), (logits.amax(-1) - logits.logsumexp(-1)).exp()


@dataclass(frozen=True)
class _Mixed:
    """As `_likeliest`, by the mixture with each row's retrieved answers."""

    mixing: Mixing

    def __call__(self, logits: torch.Tensor, new: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        written = torch.stack(list(new), dim=1).tolist() if new else [[]] * len(logits)
        probabilities, tokens = self.mixing.mixed(logits.softmax(-1), written).max(-1)
        return tokens, probabilities


def _confidences(new: torch.Tensor, probabilities: torch.Tensor, end: int) -> list[float]:
    """The mean probability of each row's tokens up to and with its first end token; both `(B, T)`, T > 0."""
    ends = new == end
    counted = ends.cumsum(1) - ends.int() == 0  # no end before it
    return ((probabilities * counted).sum(1) / counted.sum(1)).clamp(0, 1).tolist()
