"""Intervals hold what they promise, in simulation; tests and calibration against figures by hand and scikit-learn."""

from collections.abc import Callable
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from tasks.compare.trainings import over_trainings
from tasks.score.calibration import BINS, expected_calibration_error, pool_bins, reliability_bins
from tasks.score.statistics import (
    bootstrap_interval,
    estimate,
    label_counts,
    macro_f1,
    mcnemar,
    mean,
    proportion,
    sums_by_cluster,
)

TRIALS = 300
IMAGES = 40
SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


def hospital(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images with one to five questions each, some images harder than others: right or wrong, and their images."""
    questions = random.integers(1, 6, IMAGES)
    images = np.repeat(np.arange(IMAGES), questions)
    ease = random.beta(2, 2, IMAGES)
    return (random.random(len(images)) < ease[images]).astype(float), images


def covered(interval: Callable[[np.ndarray, np.ndarray, int], tuple[float, float]], truth: float) -> int:
    """In how many of the trials the interval holds the truth."""
    random = np.random.default_rng(7)
    found = 0
    for trial in range(TRIALS):
        values, images = hospital(random)
        low, high = interval(values, images, trial)
        found += low <= truth <= high
    return found


# How often a right 95 % interval misses is binomial; the bounds leave it out once in a million.
LEAST, MOST = binom.ppf([5e-7, 1 - 5e-7], TRIALS, 0.95)


def test_an_interval_over_images_holds_the_truth_in_95_of_100_draws() -> None:
    def over_images(values: np.ndarray, images: np.ndarray, seed: int) -> tuple[float, float]:
        found = bootstrap_interval(values, images, seed)
        return found.low, found.high

    assert LEAST <= covered(over_images, 0.5) <= MOST


def test_an_interval_over_questions_does_not() -> None:
    def over_questions(values: np.ndarray, images: np.ndarray, seed: int) -> tuple[float, float]:
        found = bootstrap_interval(values, range(len(values)), seed)
        return found.low, found.high

    assert covered(over_questions, 0.5) < 0.92 * TRIALS


def test_of_one_training_the_paired_test_errs_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    alike, apart = 0, 0
    for _ in range(TRIALS):
        one, images = hospital(random)
        other = np.where(random.random(len(one)) < 0.3, random.permutation(one), one)  # as good, not the same
        worse = np.where(random.random(len(one)) < 0.3, 0, one)
        for second in (other, worse):
            columns = np.column_stack([one - second, np.ones(len(one))])
            p = over_trainings(columns, [0] * len(one), images.tolist(), mean).p
            if second is other:
                alike += p <= 0.05
            else:
                apart += p <= 0.05
    assert alike <= TRIALS - LEAST
    assert apart > 0.9 * TRIALS


def test_of_few_images_the_interval_is_as_wide_as_students_t_asks() -> None:
    """The plain percentile interval of eight images is a quarter narrower."""
    values = np.random.default_rng(4).normal(size=8)
    found = bootstrap_interval(values, range(8), 0)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx(high - low, rel=0.12)


def test_the_interval_of_a_mean_of_independent_rows_is_the_textbooks() -> None:
    values = np.random.default_rng(0).random(400)
    found = bootstrap_interval(values, range(400), 0)
    margin = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.interval == pytest.approx([values.mean() - margin, values.mean() + margin], abs=0.15 * margin)


@given(SCORES, st.randoms())
def test_neither_order_nor_names_of_images_make_a_difference(values: list[float], random) -> None:
    images = [random.randrange(4) for _ in values]
    rows = list(zip(values, images, strict=True))
    random.shuffle(rows)
    other, names = zip(*rows, strict=True)
    assert bootstrap_interval(values, images, 1) == bootstrap_interval(other, [f"image {n}" for n in names], 1)


@given(SCORES)
def test_the_estimate_lies_in_its_interval_or_there_is_none(values: list[float]) -> None:
    found = bootstrap_interval(values, range(len(values)), 0)
    assert found.value == pytest.approx(np.mean(values))
    if len(values) == 1:
        assert found.interval is None
    else:
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9
        assert -1e-9 <= found.low <= found.high <= 1 + 1e-9


def test_rows_without_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="a cluster for each; found 2 and 1"):
        bootstrap_interval([1, 0], ["a"], 0)
    with pytest.raises(ValueError, match="Expected rows"):
        bootstrap_interval([], [], 0)


LABELS = st.sampled_from("abcd")


@settings(deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30))
def test_macro_f1_against_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = zip(*pairs, strict=True)
    found = estimate(sums_by_cluster(label_counts(gold, predicted), range(len(pairs))), macro_f1, 0)
    oracle = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert found.value == pytest.approx(oracle)


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (0, 120), (1, 313), (40, 96), (96, 96)])
def test_the_interval_of_a_share_leaves_2_5_percent_at_each_end(count: int, of: int) -> None:
    """At each end the count, or one farther away, has a probability of 0.025; summed term by term."""
    found = proportion(count, of)
    assert found.value == count / of

    def tail(share: float, counts: range) -> float:
        return sum(comb(of, n) * share**n * (1 - share) ** (of - n) for n in counts)

    assert found.low is not None and found.high is not None
    assert found.low == 0 if count == 0 else tail(found.low, range(count, of + 1)) == pytest.approx(0.025)
    assert found.high == 1 if count == of else tail(found.high, range(count + 1)) == pytest.approx(0.025)


def test_mcnemar_by_hand() -> None:
    # Of ten questions that one alone answers rightly, one is b's: two tails of one or none of ten fair coins.
    found = mcnemar([True] * 9 + [False] + [True] * 5 + [False] * 5, [False] * 9 + [True] + [True] * 5 + [False] * 5)
    assert (found.only_a, found.only_b) == (9, 1)
    assert found.p == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert mcnemar([True, False], [True, False]).p == 1
    with pytest.raises(ValueError):
        mcnemar([True], [])


def test_calibration_by_hand() -> None:
    bins = reliability_bins([0.95, 0.95, 0.05, 1.0], [1, 0, 0, 1])
    assert (bins[9].n, bins[9].confidence, bins[9].correct) == (3, pytest.approx(2.9), 2)
    assert bins[0].n == 1
    assert sum(each.n for each in bins) == 4
    # Three of four in the last bin: 2.9 / 3 against 2 / 3; one in the first: 0.05 against 0.
    assert expected_calibration_error(bins) == pytest.approx(3 / 4 * (2.9 / 3 - 2 / 3) + 1 / 4 * 0.05)
    assert expected_calibration_error(reliability_bins([], [])) is None
    for wrong in ([1.5], [float("nan")], [0.5, 0.5]):
        with pytest.raises(ValueError, match="confidence from 0 to 1"):
            reliability_bins(wrong, [1])


def test_calibration_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    sure = random.random(500)
    right = random.random(500) < sure**2
    bins = reliability_bins(sure, right)
    accuracy, confidence = calibration_curve(right, sure, n_bins=BINS)
    assert [each.correct / each.n for each in bins] == pytest.approx(accuracy)
    assert [each.confidence / each.n for each in bins] == pytest.approx(confidence)


def test_pooled_bins_are_the_bins_of_all_answers() -> None:
    sure = np.random.default_rng(0).integers(0, 9, 60) / 8
    right = sure > 0.4
    parts = [reliability_bins(sure[part], right[part]) for part in (slice(0, 13), slice(13, 60))]
    assert pool_bins(parts) == reliability_bins(sure, right)
