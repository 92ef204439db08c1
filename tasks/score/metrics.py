"""The metrics: each an entry of METRICS, which scoring, sharing, tables, pages and comparison go through.

A new metric is one entry here and its function, nothing else. The order of the entries is that of `scores` in
`results.json` and `comparison.json`, of the columns of `sums.parquet`, and of all tables.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.records import Kind, Outcome
from tasks.score.exact import exact
from tasks.score.overlap import bleu, exact_match, rouge_l, token_f1, token_recall
from tasks.score.published import lightfed, lightfed_bleu, lightfed_rouge_l, llava_med_closed, llava_med_open
from tasks.score.statistics import Statistic, label_counts, macro_f1, mean


@dataclass(frozen=True)
class Metric:
    """A figure over questions of one kind: what it is called, and how an answer scores."""

    name: str
    """In `scores` of `results.json` and `comparison.json`, and of its column in `sums.parquet`."""
    title: str
    """For people."""
    kind: Kind | None
    """Of which questions it is; None for all. Multiple-choice questions are closed ones."""
    field: str
    """An answer's score: in the rows of `fed-rag score`, and pooled under `open` of `results.json`."""
    score: Callable[[str, str], float] | None = None
    """The score of an answer, from 0 to 1, from prediction and reference as they were written: any two strings. None
    where it follows from the judgement of the answer: `field` is then `correct`, or `gold`, its label."""
    statistic: Statistic = mean
    """The figure, of sums over answers of what `columns` gives."""
    binary: bool = False
    """Whether an answer scores 0 or 1, so that McNemar's test applies."""
    main: bool = False
    """Whether it is told for each group too, and tested in the tables of a comparison."""
    published: bool = False
    """Whether it is the rule of a published system, for comparison with its figures alone."""
    in_headline: bool = True
    """Whether a run's first table has a column of it; those of open questions alone can."""
    with_interval: bool = True
    """Whether a run's table of intervals has a column of it."""
    short: str = ""
    """Its title in a run's first table, where it is another."""
    decimals: int = 3
    higher_is_better: bool = True

    @property
    def heading(self) -> str:
        """Above its column."""
        return self._directed(self.title)

    @property
    def short_heading(self) -> str:
        """Above its column in a run's first table."""
        return self._directed(self.short or self.title)

    def _directed(self, title: str) -> str:
        return title if self.higher_is_better else f"{title} (lower is better)"

    @property
    def of_labels(self) -> bool:
        """Whether the figure is made of the labels of closed questions."""
        return self.field == "gold"

    def values(self, rows: Sequence[Outcome]) -> list[Any]:
        """The score of each answer, or its label."""
        return [getattr(row, self.field) if self.score is None else row.scores[self.field] for row in rows]

    def columns(self, rows: Sequence[Outcome]) -> np.ndarray:
        """What the figure is made of: (N, M), a row for each answer."""
        if self.of_labels:
            return label_counts(self.values(rows), [row.predicted for row in rows])
        return np.column_stack([self.values(rows), np.ones(len(rows))])

    def text(self, value: float, sign: str = "") -> str:
        """A figure as text; with `+` as sign, a difference."""
        return f"{value:{sign}.{self.decimals}f}"

    def text_with_interval(self, value: float, ends: Sequence[float] | None, sign: str = "") -> str:
        """A figure with both ends of its interval, where it has one, as `0.838 [0.799, 0.872]`."""
        return self.text(value, sign) + ("" if ends is None else f" [{self.text(ends[0])}, {self.text(ends[1])}]")


METRICS = {
    metric.name: metric
    for metric in (
        Metric("correct", "all right", None, "correct", binary=True, main=True),
        Metric("closed_accuracy", "closed accuracy", "closed", "correct", binary=True, main=True),
        Metric("closed_f1", "closed F1", "closed", "gold", statistic=macro_f1),
        Metric(
            "open_exact_match",
            "open exact match",
            "open",
            "exact_match",
            exact_match,
            binary=True,
            main=True,
            short="exact",
        ),
        Metric("open_f1", "F1", "open", "f1", token_f1, in_headline=False, with_interval=False),
        Metric("open_bleu", "BLEU", "open", "bleu", bleu),
        Metric("open_rouge_l", "ROUGE-L", "open", "rouge_l", rouge_l),
        Metric(
            "open_token_recall",
            "token recall",
            "open",
            "token_recall",
            token_recall,
            with_interval=False,
            short="recall",
        ),
        Metric("lightfed_accuracy", "LightFED closed", "closed", "lightfed", lightfed, binary=True, published=True),
        Metric("lightfed_bleu", "LightFED BLEU", "open", "lightfed_bleu", lightfed_bleu, published=True),
        Metric("lightfed_rouge_l", "LightFED ROUGE-L", "open", "lightfed_rouge_l", lightfed_rouge_l, published=True),
        Metric("llava_med_closed", "LLaVA-Med closed", "closed", "llava_med", llava_med_closed, published=True),
        Metric("llava_med_open", "LLaVA-Med open", "open", "llava_med", llava_med_open, published=True),
    )
}
"""By name."""


def main_metrics() -> list[Metric]:
    """Those that are told for each group too."""
    return [metric for metric in METRICS.values() if metric.main]


def compared_metrics() -> list[Metric]:
    """Those of the tables of a comparison's tests, whose p values are corrected together."""
    return [metric for metric in main_metrics() if metric.kind]


def pooled_metrics() -> list[Metric]:
    """Our own of open questions, in the order in which `results.json` pools them: those of the first table first."""
    own = [metric for metric in METRICS.values() if metric.kind == "open" and metric.score and not metric.published]
    return sorted(own, key=lambda metric: not metric.in_headline)


def titled(*, published: bool) -> Iterator[Metric]:
    """Ours, or those of published systems, that tables show beside each other: each of one kind of question."""
    return (metric for metric in METRICS.values() if metric.kind and metric.published == published)


def pooled_scores(prediction: str, reference: str) -> dict[str, float]:
    """One answer's own scores of open questions, by field."""
    return {metric.field: _scored(metric, prediction, reference) for metric in pooled_metrics()}


def answer_scores(prediction: str, reference: str, kind: Kind) -> dict[str, float]:
    """Every score of one answer, by field: those of open questions for closed ones too.

    Where metrics of both kinds share a field, it is scored as the question's kind is.
    """
    chosen: dict[str, Metric] = {}
    for metric in (*pooled_metrics(), *METRICS.values()):
        if metric.score and (metric.field not in chosen or metric.kind == kind):
            chosen[metric.field] = metric
    return {field: _scored(metric, prediction, reference) for field, metric in chosen.items()}


def _scored(metric: Metric, prediction: str, reference: str) -> float:
    assert metric.score
    return exact(metric.score(prediction, reference))
