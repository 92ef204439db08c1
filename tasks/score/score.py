"""Scores of answers: a row for each question, a tally that a hospital may share, and figures computed from tallies.

A closed question is right where the answer means the same as the reference. Yes/no questions are judged by which of the
two the answer says, multiple choice by the option that it names. Open questions get the scores of
`tasks.score.metrics`. A perfect answer scores 1 by every definition and a blank one 0. A case without a reference
cannot be answered rightly.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from tasks.records import Kind
from tasks.records.run_document import Scores
from tasks.records.shared_documents import TallyDocument
from tasks.score.metrics import pooled_metrics, pooled_scores
from tasks.text.meaning import CHINESE, meaning, polarity, same
from tasks.text.options import distinct, option_of, place_of, tidy, unlabelled

NEITHER = "(neither)"
"""Predicted label of an answer that is not clearly yes or no, where the reference is yes or no."""
OTHER = "(other)"
"""Predicted label of any other wrong answer. A reference in the form of `meaning` holds no brackets, so none equals
these."""


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """The judgement on one closed question."""

    gold: str
    """The reference in the form of `meaning`."""
    predicted: str
    """The same as `gold` where the answer is right; else `yes`, `no`, `NEITHER` or `OTHER`."""
    choice: bool = False
    """Whether it was multiple choice."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.gold == self.predicted


@dataclass(frozen=True, slots=True)
class OpenRow:
    """The judgement on one open question."""

    scores: Mapping[str, float]
    """Scores from 0 to 1, by field of the metric (`tasks.score.metrics.pooled_scores`)."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right: an exact match."""
        return self.scores["exact_match"] == 1


Row = ClosedRow | OpenRow
UNTOLD = "(untold)"
"""Label of every reference where a hospital withholds the labels of its cases."""


@dataclass(frozen=True)
class Tally:
    """Counts and sums over rows: all that a hospital shares of its judgements."""

    confusion: Mapping[tuple[str, str], int]
    """How often each pair of gold and predicted label occurred among the closed questions."""
    open: int
    """Number of open questions."""
    sums: Mapping[str, float]
    """Sum of each score over the open questions, by its field."""
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

    @property
    def labelled(self) -> bool:
        """Whether the labels of all closed questions are shared."""
        return all(gold != UNTOLD for gold, _ in self.confusion)

    def to_json(self) -> TallyDocument:
        """The tally as JSON values; equal tallies give equal text."""
        pairs = [(gold, predicted, count) for (gold, predicted), count in sorted(self.confusion.items())]
        return {
            "closed": {"n": self.closed, "correct": self.correct, "confusion": pairs},
            "open": {"n": self.open, "sums": dict(self.sums)},
            "choice": {"n": self.choices[0], "correct": self.choices[1]},
        }

    @classmethod
    def from_json(cls, value: TallyDocument) -> "Tally":
        """Read what `to_json` returned; raises KeyError where a part is missing."""
        confusion = {(gold, predicted): count for gold, predicted, count in value["closed"]["confusion"]}
        sums = {field: value["open"]["sums"][field] for field in _pooled()}
        choices = value["choice"]["n"], value["choice"]["correct"]
        return cls(confusion, value["open"]["n"], sums, choices)


def score_row(prediction: str, reference: str, kind: Kind, options: Sequence[str] | Mapping[str, str] = ()) -> Row:
    """Judge one answer; any strings are accepted, as written.

    With `options`, the answer is right where it names the option that is the reference. A letter as reference refers to
    the options as given; a letter as answer refers to them as `distinct` shows them. The options are lettered from A,
    or have the upper-case letters that they are given with.
    """
    if options:
        return ClosedRow(*_choice_labels(prediction, reference, options), choice=True)
    if kind == "closed":
        return ClosedRow(*_closed_labels(prediction, reference))
    return OpenRow(pooled_scores(prediction, reference))


def _closed_labels(prediction: str, reference: str) -> tuple[str, str]:
    """The gold and the predicted label; a Chinese yes or no becomes the English one, so both languages share their
    labels."""
    gold = meaning(reference)
    gold = CHINESE.get(gold, gold)
    if gold in ("yes", "no"):
        return gold, polarity(prediction) or NEITHER
    if gold and same(prediction, reference):
        return gold, gold
    answer = meaning(prediction)
    return gold, answer if answer in ("yes", "no") else OTHER


def _choice_labels(prediction: str, reference: str, options: Sequence[str] | Mapping[str, str]) -> tuple[str, str]:
    given = list(options.values()) if isinstance(options, Mapping) else list(options)
    letters = "".join(options) if isinstance(options, Mapping) else ascii_uppercase
    plain = unlabelled(given, letters)
    choices = plain if isinstance(options, Mapping) else distinct(given)
    gold_place = place_of(reference, given, letters)
    gold_place = option_of(reference, plain, letters) if gold_place is None else gold_place
    if gold_place is None:
        return _closed_labels(prediction, reference)
    named = option_of(prediction, choices, letters)
    said = choices[named] if named is not None else ""
    gold, label = _closed_labels(said, plain[gold_place])
    if named is not None and meaning(tidy(said)) == meaning(tidy(plain[gold_place])):
        return gold, gold
    return gold, OTHER if label == gold else label


def summarise(rows: Iterable[Row]) -> Tally:
    """Tally rows, in any order."""
    rows = list(rows)
    answered = [row for row in rows if isinstance(row, OpenRow)]
    chosen = [row for row in rows if isinstance(row, ClosedRow) and row.choice]
    return Tally(
        confusion=dict(Counter((row.gold, row.predicted) for row in rows if isinstance(row, ClosedRow))),
        open=len(answered),
        sums={field: sum((row.scores[field] for row in answered), 0.0) for field in _pooled()},
        choices=(len(chosen), sum(row.correct for row in chosen)),
    )


def pool(tallies: Iterable[Tally]) -> Tally:
    """Add up the tallies of several hospitals."""
    tallies = list(tallies)
    confusion: Counter[tuple[str, str]] = Counter()
    for tally in tallies:
        confusion.update(tally.confusion)
    return Tally(
        confusion=dict(confusion),
        open=sum(tally.open for tally in tallies),
        sums={field: sum((tally.sums[field] for tally in tallies), 0.0) for field in _pooled()},
        choices=(sum(tally.choices[0] for tally in tallies), sum(tally.choices[1] for tally in tallies)),
    )


def scores(tally: Tally) -> Scores:
    """The figures to report, each from 0 to 1 with its denominator `n`; None where there was no such question.

    `f1_macro` is the mean F1 over the labels that occur as references; it is None where a hospital withholds its
    labels. `choice` covers the multiple-choice questions among the closed ones.
    """
    closed, opened = tally.closed, tally.open
    chosen, right = tally.choices
    means = {field: tally.sums[field] / opened if opened else None for field in _pooled()}
    return {
        "closed": {
            "n": closed,
            "accuracy": tally.correct / closed if closed else None,
            "f1_macro": _f1_macro(tally.confusion) if closed and tally.labelled else None,
        },
        "open": {"n": opened, **means},
        "choice": {"n": chosen, "accuracy": right / chosen if chosen else None},
    }


def _pooled() -> list[str]:
    return [metric.field for metric in pooled_metrics()]


def _f1_macro(confusion: Mapping[tuple[str, str], int]) -> float:
    from sklearn.metrics import f1_score

    pairs = sorted(confusion)
    gold, predicted = zip(*pairs, strict=True)
    weights = [confusion[pair] for pair in pairs]
    labels = sorted(set(gold))
    f1 = f1_score(gold, predicted, labels=labels, average="macro", sample_weight=weights, zero_division=0)
    return float(f1)
