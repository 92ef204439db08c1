"""Paired tests of configurations that answered the same cases."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tasks.score.measures import HOLDS, MEASURES, Answers, Measure
from tasks.score.statistics import mcnemar
from tasks.score.trainings import over_trainings

TESTED = ("closed_accuracy", "open_exact_match")
"""Measures of the tables of tests, whose p values are corrected together; those of all other measures are, too."""


def paired_tests(answers: Mapping[str, Answers], trained: Sequence[str], reference: str) -> list[dict[str, Any]]:
    """The reference against every other row, and the trained configurations among each other.

    `difference` is a minus b, the mean over the seeds, and its interval and p value hold the chance of training where
    there are several (`tasks.score.trainings`). Where a measure is right or wrong, McNemar's exact test of each seed
    stands beside it: it tells two trained adapters apart, not two ways of training.

    `p_holm` are p values corrected for all that one table shows (Holm, Scandinavian Journal of Statistics 6, 1979): the
    differences in TESTED over all pairs, and McNemar's tests of these over all pairs and seeds.
    """
    pairs = [(reference, other) for other in answers if other != reference]
    pairs += [pair for pair in combinations(trained, 2) if reference not in pair]
    found = []
    for name, measure in MEASURES.items():
        places = next(iter(answers.values())).chosen(measure)
        if places:
            found += [
                {"measure": name, "a": a, "b": b, **_test(answers[a], answers[b], measure, places)} for a, b in pairs
            ]
    for shown in (True, False):
        own = [test for test in found if (test["measure"] in TESTED) == shown]
        _correct(own)
        _correct([each for test in own for each in (test["mcnemar"] or {}).values()])
    return found


def _test(a: Answers, b: Answers, measure: Measure, places: Sequence[int]) -> dict[str, Any]:
    rows_a, rows_b = ([each.rows[place] for place in places] for each in (a, b))
    columns = np.hstack([measure.columns(rows_a), measure.columns(rows_b)])
    half = columns.shape[1] // 2  # the same cases have the same labels, so both have as many columns
    seeds, images = [a.seeds[place] for place in places], [a.images[place] for place in places]
    found = over_trainings(
        columns, seeds, images, lambda sums: measure.statistic(sums[:, :half]) - measure.statistic(sums[:, half:])
    )
    names = list(dict.fromkeys(seeds))
    return {
        "n": len(places),
        "images": len(set(images)),
        "difference": found.value,
        "interval": found.interval,
        "interval_holds": HOLDS[len(names) > 1],
        "p": found.p,
        "by_seed": dict(zip(map(str, names), found.by_seed, strict=True)),
        "mcnemar": _mcnemar(measure.values(rows_a), measure.values(rows_b), seeds) if measure.binary else None,
    }


def _mcnemar(a: Sequence[float], b: Sequence[float], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """McNemar's test of each seed's answers. Seeds that ask the same questions are never pooled: these count once."""
    found = {}
    for seed in dict.fromkeys(seeds):
        own = [place for place, each in enumerate(seeds) if each == seed]
        exact = mcnemar(*([of[place] == 1 for place in own] for of in (a, b)))
        found[str(seed)] = {"only_a": exact.only_a, "only_b": exact.only_b, "p": exact.p}
    return found


def _correct(tests: Sequence[dict[str, Any]]) -> None:
    """Give each its `p_holm`; None where there is no p."""
    tested = [test for test in tests if test["p"] is not None]
    corrected = holm([test["p"] for test in tested])
    for test in tests:
        test["p_holm"] = None
    for test, p in zip(tested, corrected, strict=True):
        test["p_holm"] = p


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for their number, after Holm: the chance of any false finding stays what it is for one."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected
