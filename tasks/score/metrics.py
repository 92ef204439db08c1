"""The metrics: scoring, sharing, tables, pages and comparisons all read the table METRICS.

A new metric needs one entry here and its function, nothing else. The order of the entries is the order of `scores` in
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
    """A metric over questions of one kind: its names, and how an answer is scored."""

    name: str
    """Name in `scores` of `results.json` and `comparison.json`, and of the column in `sums.parquet`."""
    title: str
    """Name in tables and plots."""
    kind: Kind | None
    """Kind of question it covers; None for all. Multiple-choice questions are closed."""
    field: str
    """Name of an answer's score in the rows of `fed-rag score`, and of its mean under `open` of `results.json`."""
    score: Callable[[str, str], float] | None = None
    """Scores an answer from 0 to 1, given the prediction and the reference as written (any two strings). None where the
    score follows from the judgement of the answer: `field` is then `correct`, or `gold` (the label)."""
    statistic: Statistic = mean
    """Computes the figure from sums over answers of the numbers that `columns` gives."""
    binary: bool = False
    """Whether an answer scores either 0 or 1, so that McNemar's test applies."""
    main: bool = False
    """Whether it is also reported for each group, and tested in the tables of a comparison."""
    published: bool = False
    """Whether it is the rule of a published system, used only to compare with its published figures."""
    in_headline: bool = True
    """Whether a run's first table has a column for it; applies only to metrics of open questions."""
    with_interval: bool = True
    """Whether a run's table of intervals has a column for it."""
    short: str = ""
    """Title in a run's first table, where it differs from `title`."""
    decimals: int = 3
    higher_is_better: bool = True

    @property
    def heading(self) -> str:
        """Heading of its column."""
        return self._directed(self.title)

    @property
    def short_heading(self) -> str:
        """Heading of its column in a run's first table."""
        return self._directed(self.short or self.title)

    def _directed(self, title: str) -> str:
        return title if self.higher_is_better else f"{title} (lower is better)"

    @property
    def of_labels(self) -> bool:
        """Whether the figure is computed from the labels of closed questions."""
        return self.field == "gold"

    def values(self, rows: Sequence[Outcome]) -> list[Any]:
        """The score of each answer, or its label."""
        return [getattr(row, self.field) if self.score is None else row.scores[self.field] for row in rows]

    def columns(self, rows: Sequence[Outcome]) -> np.ndarray:
        """The numbers whose sums give the figure: (N, M), one row for each of N answers."""
        if self.of_labels:
            return label_counts(self.values(rows), [row.predicted for row in rows])
        return np.column_stack([self.values(rows), np.ones(len(rows))])

    def text(self, value: float, sign: str = "") -> str:
        """Format a figure as text; `+` as sign formats a difference."""
        return f"{value:{sign}.{self.decimals}f}"

    def text_with_interval(self, value: float, ends: Sequence[float] | None, sign: str = "") -> str:
        """Format a figure with its interval, where it has one: `0.838 [0.799, 0.872]`."""
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
"""All metrics by name."""


def main_metrics() -> list[Metric]:
    """The metrics that are also reported for each group."""
    return [metric for metric in METRICS.values() if metric.main]


def compared_metrics() -> list[Metric]:
    """The metrics that a comparison tests in its tables; their p values are corrected together."""
    return [metric for metric in main_metrics() if metric.kind]


def pooled_metrics() -> list[Metric]:
    """Our metrics of open questions, in the order of `results.json`: those of the first table come first."""
    metrics = [metric for metric in METRICS.values() if metric.kind == "open" and metric.score and not metric.published]
    return sorted(metrics, key=lambda metric: not metric.in_headline)


def titled(*, published: bool) -> Iterator[Metric]:
    """Our metrics, or those of published systems, that tables show side by side: each covers one kind of question."""
    return (metric for metric in METRICS.values() if metric.kind and metric.published == published)


def pooled_scores(prediction: str, reference: str) -> dict[str, float]:
    """Scores of one answer by our metrics of open questions, by field."""
    return {metric.field: _scored(metric, prediction, reference) for metric in pooled_metrics()}


def answer_scores(prediction: str, reference: str, kind: Kind) -> dict[str, float]:
    """All scores of one answer, by field; closed questions also get the scores of open ones.

    Where metrics of both kinds share a field, the metric of the question's kind scores it.
    """
    chosen: dict[str, Metric] = {}
    for metric in (*pooled_metrics(), *METRICS.values()):
        if metric.score and (metric.field not in chosen or metric.kind == kind):
            chosen[metric.field] = metric
    return {field: _scored(metric, prediction, reference) for field, metric in chosen.items()}


def _scored(metric: Metric, prediction: str, reference: str) -> float:
    assert metric.score
    return exact(metric.score(prediction, reference))
