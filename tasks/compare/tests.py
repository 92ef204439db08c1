"""Paired tests of configurations that answered the same cases."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tasks.compare.aligned import Answers
from tasks.compare.trainings import over_trainings
from tasks.records.comparison import McNemarTest, PairedTest
from tasks.score.groups import HOLDS
from tasks.score.metrics import METRICS, Metric, compared_metrics
from tasks.score.statistics import mcnemar


def paired_tests(answers: Mapping[str, Answers], trained: Sequence[str], reference: str) -> list[PairedTest]:
    """Test the reference against every other row, and the trained configurations against each other.

    `difference` is a minus b, the mean over the seeds. Its interval and p value cover the randomness of training where
    there are several seeds (`tasks.compare.trainings`). A metric whose answers are right or wrong also gets McNemar's
    exact test for each seed: that test compares two trained adapters, not two ways of training.

    `p_holm` are p values corrected for all tests in one table (Holm, Scandinavian Journal of Statistics 6, 1979): the
    differences in the metrics of the tables over all pairs, and their McNemar's tests over all pairs and seeds. The
    tests of all other metrics are corrected together in the same way.
    """
    pairs = [(reference, other) for other in answers if other != reference]
    pairs += [pair for pair in combinations(trained, 2) if reference not in pair]
    found: list[PairedTest] = []
    for metric in METRICS.values():
        places = next(iter(answers.values())).chosen(metric)
        if places:
            found += [_test((a, b), (answers[a], answers[b]), metric, places) for a, b in pairs]
    tested = {metric.name for metric in compared_metrics()}
    for in_tables in (True, False):
        family = [test for test in found if (test["measure"] in tested) == in_tables]
        _correct(family)
        _correct([each for test in family for each in (test["mcnemar"] or {}).values()])
    return found


def _test(pair: tuple[str, str], answers: tuple[Answers, Answers], metric: Metric, places: Sequence[int]) -> PairedTest:
    rows_a, rows_b = ([each.rows[place] for place in places] for each in answers)
    columns = np.hstack([metric.columns(rows_a), metric.columns(rows_b)])
    half = columns.shape[1] // 2  # the same cases have the same labels, so both have equally many columns
    seeds, images = [answers[0].seeds[place] for place in places], [answers[0].images[place] for place in places]
    found = over_trainings(
        columns, seeds, images, lambda sums: metric.statistic(sums[:, :half]) - metric.statistic(sums[:, half:])
    )
    names = list(dict.fromkeys(seeds))
    return {
        "measure": metric.name,
        "a": pair[0],
        "b": pair[1],
        "n": len(places),
        "images": len(set(images)),
        "difference": found.value,
        "interval": found.interval,
        "interval_holds": HOLDS[len(names) > 1],
        "p": found.p,
        "by_seed": dict(zip(map(str, names), found.by_seed, strict=True)),
        "mcnemar": _mcnemar(metric.values(rows_a), metric.values(rows_b), seeds) if metric.binary else None,
        "p_holm": None,
    }


def _mcnemar(a: Sequence[float], b: Sequence[float], seeds: Sequence[int]) -> dict[str, McNemarTest]:
    """McNemar's test of each seed's answers. Seeds with the same questions are not pooled, as questions would count
    twice."""
    found: dict[str, McNemarTest] = {}
    for seed in dict.fromkeys(seeds):
        places = [place for place, each in enumerate(seeds) if each == seed]
        exact = mcnemar(*([of[place] == 1 for place in places] for of in (a, b)))
        found[str(seed)] = {"only_a": exact.only_a, "only_b": exact.only_b, "p": exact.p, "p_holm": None}
    return found


def _correct(tests: Sequence[PairedTest] | Sequence[McNemarTest]) -> None:
    """Set the `p_holm` of each test that has a p value."""
    tested = [(test, p) for test in tests if (p := test["p"]) is not None]
    for (test, _), corrected in zip(tested, holm([p for _, p in tested]), strict=True):
        test["p_holm"] = corrected


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values by Holm's method, which bounds the probability of any false positive among all of them."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected
