"""Scores of answers: a row for each question, a tally that a hospital may share, and the figures made of tallies.

Closed questions are judged by exact match of the normalised text, yes/no ones by which of the two words the answer
holds, and multiple choice by the option that it names. Open questions get exact match, BLEU, ROUGE-L and token recall.
A perfect answer scores 1 by every definition and a blank one 0. A case without a reference cannot be answered rightly.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sklearn.metrics import f1_score

from tasks.normalise import HAN, normalise, yes_no
from tasks.options import distinct, option_of
from tasks.records import Kind

NEITHER = "(neither)"
"""Predicted label of an answer that is not clearly yes or no, where the reference is one of them."""
OTHER = "(other)"
"""Predicted label of any other wrong answer. Normalised words hold no brackets, so no reference equals these."""


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """The judgement on one closed question."""

    gold: str
    """The normalised reference."""
    predicted: str
    """The same where the answer is right; else `yes`, `no`, `NEITHER` or `OTHER`."""
    choice: bool = False
    """Whether it was multiple choice."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.gold == self.predicted


@dataclass(frozen=True, slots=True)
class OpenRow:
    """The judgement on one open question, each score from 0 to 1."""

    exact_match: float = 0.0
    bleu: float = 0.0
    rouge_l: float = 0.0
    token_recall: float = 0.0


Row = ClosedRow | OpenRow
METRICS = tuple(field.name for field in fields(OpenRow))


@dataclass(frozen=True)
class Tally:
    """Counts and sums over rows: all that a hospital needs to share of its judgements."""

    confusion: Mapping[tuple[str, str], int]
    """How often each pair of gold and predicted label occurred among the closed questions."""
    open: int
    """Number of open questions."""
    sums: Mapping[str, float]
    """Sum of each metric over the open questions."""
    choices: tuple[int, int] = (0, 0)
    """Multiple-choice questions among the closed ones, and those of them answered rightly."""

    @property
    def closed(self) -> int:
        """Number of closed questions."""
        return sum(self.confusion.values())

    @property
    def correct(self) -> int:
        """Number of closed questions answered rightly."""
        return sum(count for (gold, predicted), count in self.confusion.items() if gold == predicted)

    def to_json(self) -> dict[str, Any]:
        """The tally as JSON's own types; equal tallies give equal text."""
        pairs = [[gold, predicted, count] for (gold, predicted), count in sorted(self.confusion.items())]
        return {
            "closed": {"n": self.closed, "correct": self.correct, "confusion": pairs},
            "open": {"n": self.open, "sums": dict(self.sums)},
            "choice": {"n": self.choices[0], "correct": self.choices[1]},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Tally":
        """What `to_json` gave; raises KeyError where a part of it is missing."""
        confusion = {(gold, predicted): count for gold, predicted, count in value["closed"]["confusion"]}
        sums = {metric: value["open"]["sums"][metric] for metric in METRICS}
        choices = value["choice"]["n"], value["choice"]["correct"]
        return cls(confusion, value["open"]["n"], sums, choices)


class _Spaces(Tokenizer):
    """For text whose tokens are already parted by spaces; rouge-score's own tokeniser drops all but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


# Smoothing is sacrebleu's default, `exp`: the k-th n-gram order that matches nothing counts as 1/2**k of one match.
# Effective order leaves out the orders that the answer is too short to have.
WESTERN = BLEU(tokenize="13a", effective_order=True)
CHINESE = BLEU(tokenize="zh", effective_order=True)
ROUGE = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Spaces())


def bleu_signatures() -> list[str]:
    """How sacrebleu names the two BLEU settings in use: for references without and with Chinese characters."""
    for metric in (WESTERN, CHINESE):
        metric.sentence_score("a", ["a"])  # sacrebleu gives no signature before a first score
    return [str(metric.get_signature()) for metric in (WESTERN, CHINESE)]


def score_row(prediction: str, reference: str, kind: Kind, options: Sequence[str] = ()) -> Row:
    """Judge one answer. All strings are taken as they were written; any string is accepted.

    With `options` the answer is right where it names the option that the reference is, as `option_of` reads it.
    """
    answer, gold = normalise(prediction), normalise(reference)
    if options:
        return ClosedRow(gold, _choice_label(prediction, reference, gold, distinct(options)), choice=True)
    if kind == "closed":
        return ClosedRow(gold, _closed_label(answer, gold))
    return _open_row(answer, gold) if answer and gold else OpenRow()


def _closed_label(answer: str, gold: str) -> str:
    if gold in ("yes", "no"):
        return yes_no(answer) or NEITHER
    return answer if answer and answer in (gold, "yes", "no") else OTHER


def _choice_label(prediction: str, reference: str, gold: str, options: Sequence[str]) -> str:
    named = option_of(prediction, options)
    if named is not None and named == option_of(reference, options):
        return gold
    label = _closed_label(normalise(options[named]) if named is not None else "", gold)
    return OTHER if label == gold else label


def _open_row(answer: str, gold: str) -> OpenRow:
    metric = CHINESE if HAN.search(gold) else WESTERN
    answer_tokens, gold_tokens = metric.tokenizer(answer), metric.tokenizer(gold)
    return OpenRow(
        exact_match=float(answer == gold),
        bleu=_exact(metric.sentence_score(answer, [gold]).score / 100),
        rouge_l=_exact(ROUGE.score(gold_tokens, answer_tokens)["rougeL"].fmeasure),
        token_recall=_exact(_token_recall(answer_tokens.split(), gold_tokens.split())),
    )


def _token_recall(answer: list[str], gold: list[str]) -> float:
    """The share of the reference's tokens that the answer holds, a repeated token being asked for as often.

    This is what LLaVA-Med reports as "open". Its run_eval.py counts a shared token as often as the answer repeats it,
    so that repetition raises the score; here it does not. `gold` holds at least one token.
    """
    return (Counter(answer) & Counter(gold)).total() / len(gold)


def _exact(score: float) -> float:
    """The nearest multiple of 2**-32.

    Floating-point sums of such numbers are exact up to two million rows, so a pooled score is the same bits however
    the rows were shared out. It also takes away what makes sacrebleu's best score 100.00000000000004.
    """
    return round(score * 2**32) / 2**32


def summarise(rows: Iterable[Row]) -> Tally:
    """The tally of some rows, in any order."""
    rows = list(rows)
    answered = [row for row in rows if isinstance(row, OpenRow)]
    chosen = [row for row in rows if isinstance(row, ClosedRow) and row.choice]
    return Tally(
        confusion=dict(Counter((row.gold, row.predicted) for row in rows if isinstance(row, ClosedRow))),
        open=len(answered),
        sums={metric: sum((getattr(row, metric) for row in answered), 0.0) for metric in METRICS},
        choices=(len(chosen), sum(row.correct for row in chosen)),
    )


def pool(tallies: Iterable[Tally]) -> Tally:
    """The tally of several hospitals' rows together."""
    tallies = list(tallies)
    confusion: Counter[tuple[str, str]] = Counter()
    for tally in tallies:
        confusion.update(tally.confusion)
    return Tally(
        confusion=dict(confusion),
        open=sum(tally.open for tally in tallies),
        sums={metric: sum((tally.sums[metric] for tally in tallies), 0.0) for metric in METRICS},
        choices=(sum(tally.choices[0] for tally in tallies), sum(tally.choices[1] for tally in tallies)),
    )


def scores(tally: Tally) -> dict[str, dict[str, int | float | None]]:
    """The figures to report, each from 0 to 1 beside its denominator `n`; None where there was no such question.

    `f1_macro` is the mean F1 over the labels that occur as references; `choice` is the part of the closed questions
    that is multiple choice.
    """
    closed, opened = tally.closed, tally.open
    chosen, right = tally.choices
    means = {metric: tally.sums[metric] / opened if opened else None for metric in METRICS}
    return {
        "closed": {
            "n": closed,
            "accuracy": tally.correct / closed if closed else None,
            "f1_macro": _f1_macro(tally.confusion) if closed else None,
        },
        "open": {"n": opened, **means},
        "choice": {"n": chosen, "accuracy": right / chosen if chosen else None},
    }


def _f1_macro(confusion: Mapping[tuple[str, str], int]) -> float:
    pairs = sorted(confusion)
    gold, predicted = zip(*pairs, strict=True)
    weights = [confusion[pair] for pair in pairs]
    labels = sorted(set(gold))
    f1 = f1_score(gold, predicted, labels=labels, average="macro", sample_weight=weights, zero_division=0)
    return float(f1)
