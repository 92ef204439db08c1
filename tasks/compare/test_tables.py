"""The tables of a comparison's tests, as text cells made of its document."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.compare.tests import TESTED
from tasks.records.text_table import Table
from tasks.score.measures import HOLDS

GROUPED = {measure: measure.replace("_", " ") for measure in TESTED}
"""Measures that every table shows, and what they are called there."""


def paired_tables(document: Mapping[str, Any], split: str, title: str) -> list[Table]:
    """The tests of a split: differences over all seeds, and McNemar's test of each."""
    return [_tests(document, split, title), _mcnemar(document, split, title)]


def interval(ends: Sequence[float] | None) -> str:
    """Both ends as text that stands behind a figure; nothing where there are none."""
    return "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"


def holds(document: Mapping[str, Any]) -> str:
    """Whose chance the intervals hold, as a sentence."""
    several = len(document["seeds"]) > 1
    left_out = "" if several else ", for the one training as it is: what another training would give is not in them"
    return f"Intervals of 95 % hold the chance of {HOLDS[several]}{left_out}."


def _tests(document: Mapping[str, Any], split: str, title: str) -> Table:
    rows = [
        (
            *names,
            f"{test['difference']:+.3f}{interval(test['interval'])}",
            _p(test["p_holm"]),
        )
        for names, test in _tested(document, split)
    ]
    name = f"Paired tests, {title} split"
    headings = ("pair", "measure", "difference", "p (Holm)")
    note = f"{holds(document)} P values, not intervals, are corrected after Holm for all that this table shows."
    return Table(name, headings, tuple(rows), note)


def _mcnemar(document: Mapping[str, Any], split: str, title: str) -> Table:
    seeds = [str(seed) for seed in document["seeds"]]
    rows = [
        (*names, *(_right_alone(test["mcnemar"].get(seed)) for seed in seeds))
        for names, test in _tested(document, split)
    ]
    name = f"McNemar's test of each seed, {title} split"
    note = (
        "Questions that one alone answers rightly, and the exact p after Holm over all that this table shows. It is of "
        "two trained models, not of two ways of training, and takes questions for independent, as those of one image "
        "are not."
    )
    return Table(name, ("pair", "measure", *(f"seed {seed}" for seed in seeds)), tuple(rows), note)


def _tested(document: Mapping[str, Any], split: str) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """The split's tests that tables show, each with its pair and its measure as text."""
    labels = {each["name"]: each["label"] for each in document["configurations"]}
    for test in document["tests"]:
        if test["split"] == split and test["measure"] in GROUPED:
            yield (f"{labels[test['a']]} against {labels[test['b']]}", GROUPED[test["measure"]]), test


def _right_alone(test: Mapping[str, Any] | None) -> str:
    return "" if test is None else f"{test['only_a']} / {test['only_b']}, p {_p(test['p_holm'])}"


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
