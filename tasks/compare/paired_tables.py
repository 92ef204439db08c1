"""The tables of a comparison's paired tests, as text."""

from collections.abc import Iterator

from tasks.compare.cells import holds, labels
from tasks.records.comparison import ComparisonDocument, McNemarTest, SplitTest
from tasks.records.text_table import Table
from tasks.score.metrics import Metric, compared_metrics


def paired_tables(document: ComparisonDocument, split: str, title: str) -> list[Table]:
    """The tests of a split: differences over all seeds, and McNemar's test of each seed."""
    return [_tests(document, split, title), _mcnemar(document, split, title)]


def _tests(document: ComparisonDocument, split: str, title: str) -> Table:
    rows = [
        (
            pair,
            metric.heading,
            metric.text_with_interval(test["difference"], test["interval"], sign="+"),
            _p(test["p_holm"]),
        )
        for pair, metric, test in _tested(document, split)
    ]
    name = f"Paired tests, {title} split"
    headings = ("pair", "measure", "difference", "p (Holm)")
    note = f"{holds(document)} P values, not intervals, are corrected after Holm for all that this table shows."
    return Table(name, headings, tuple(rows), note)


def _mcnemar(document: ComparisonDocument, split: str, title: str) -> Table:
    seeds = [str(seed) for seed in document["seeds"]]
    rows = [
        (pair, metric.heading, *(_right_alone((test["mcnemar"] or {}).get(seed)) for seed in seeds))
        for pair, metric, test in _tested(document, split)
    ]
    name = f"McNemar's test of each seed, {title} split"
    note = (
        "Questions that one alone answers rightly, and the exact p after Holm over all that this table shows. It is of "
        "two trained models, not of two ways of training, and takes questions for independent, as those of one image "
        "are not."
    )
    return Table(name, ("pair", "measure", *(f"seed {seed}" for seed in seeds)), tuple(rows), note)


def _tested(document: ComparisonDocument, split: str) -> Iterator[tuple[str, Metric, SplitTest]]:
    """The tests of a split that the tables show, each with its pair as text and its metric."""
    called, tested = labels(document), {metric.name: metric for metric in compared_metrics()}
    for test in document["tests"]:
        if test["split"] == split and test["measure"] in tested:
            yield f"{called[test['a']]} against {called[test['b']]}", tested[test["measure"]], test


def _right_alone(test: McNemarTest | None) -> str:
    return "" if test is None else f"{test['only_a']} / {test['only_b']}, p {_p(test['p_holm'])}"


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
