"""The comparison's test holds its level in simulation, where pooling seeds does not; and against textbook formulas."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.level import Design, draw, over_seeds_and_images, pooled_bootstrap, pooled_mcnemar, rejections
from tasks.compare.trainings import OverTrainings, over_trainings
from tasks.score.statistics import bootstrap_interval, label_counts, macro_f1, mean

TRIALS = 400
LIMIT = 0.07


def mean_over(values: np.ndarray, seeds: list[int], images: list) -> OverTrainings:
    """The mean of some values, over seeds and images."""
    return over_trainings(np.column_stack([values, np.ones(len(values))]), seeds, images, mean)


@pytest.mark.parametrize("test_sets", ["shared", "own", "drawn"])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("training", [0.0, 0.015])
def test_without_an_effect_it_errs_no_more_often_than_it_says(test_sets: str, seeds: int, training: float) -> None:
    design = Design(seeds, test_sets, images=60, questions=4, training=training)
    assert rejections(design, over_seeds_and_images, TRIALS) <= LIMIT


def test_many_trainings_of_one_test_set_are_told_apart_by_more_than_its_images() -> None:
    """The hardest case for few seeds: training and images weigh about as much."""
    design = Design(3, "shared", images=60, questions=6, training=0.04, taste=0.1)
    assert rejections(design, over_seeds_and_images, TRIALS) <= LIMIT
    assert rejections(design, pooled_bootstrap, TRIALS) > 0.15


def test_rows_of_all_seeds_together_find_differences_that_are_not_there() -> None:
    """What stood here before: each question counts as often as there are seeds, and training's chance as an effect."""
    no_chance = Design(3, "shared", images=60, questions=4, training=0.0, taste=0.1)
    assert rejections(no_chance, pooled_mcnemar, TRIALS) > 2 * LIMIT
    chance = Design(3, "own", images=100, questions=6, training=0.015)
    assert rejections(chance, pooled_bootstrap, TRIALS) > 2 * LIMIT
    assert rejections(chance, over_seeds_and_images, TRIALS) <= LIMIT


def test_what_is_there_is_found() -> None:
    plain = Design(5, "shared", images=100, questions=6, training=0.015)
    assert rejections(replace(plain, effect=0.05), over_seeds_and_images, TRIALS) > 0.6
    assert rejections(replace(plain, effect=0.10), over_seeds_and_images, TRIALS) > 0.95


def test_of_a_score_95_of_100_intervals_hold_what_the_configuration_is_worth() -> None:
    """Over all trainings and images, whose chances shares are drawn with; those beyond 0 and 1 are cut."""
    random = np.random.default_rng(5)
    spread = (0.2**2 + 0.05**2 + 0.04**2) ** 0.5
    truth = np.clip(random.normal(0.7, spread, 10**6), 0, 1).mean()
    over_both, over_images = 0, 0
    for trial in range(TRIALS):
        found = draw(Design(4, "shared", images=150, questions=2, training=0.04), random)
        low, high = mean_over(found.first, found.seeds, found.images).interval
        over_both += not low <= truth <= high
        once = bootstrap_interval(found.first.tolist(), found.images, trial)
        over_images += not once.low <= truth <= once.high
    assert over_both <= LIMIT * TRIALS
    assert over_images > 0.1 * TRIALS


def test_with_images_of_their_own_seeds_are_compared_by_students_t() -> None:
    by_seed = np.array([0.1, 0.4, 0.2, 0.5])
    noise = np.tile([-0.01, 0.01], 10)
    values = np.concatenate([value + noise for value in by_seed])
    found = mean_over(values, np.repeat(range(4), 20).tolist(), list(range(80)))
    oracle = stats.ttest_1samp(by_seed, 0)
    assert found.by_seed == pytest.approx(by_seed)
    assert found.p == pytest.approx(oracle.pvalue)
    assert found.interval == pytest.approx(list(oracle.confidence_interval(0.95)))


def test_seeds_that_share_images_are_compared_as_in_an_analysis_of_variance() -> None:
    """Random effects of seeds and images without repetition: variance (MS seeds + (MS images - MS rest)) / rows."""
    random = np.random.default_rng(2)
    seeds, images = 5, 12
    table = 0.3 + random.normal(0, 0.2, (seeds, 1)) + random.normal(0, 0.4, images) + random.normal(0, 0.1, (5, 12))
    found = mean_over(table.ravel(), np.repeat(range(seeds), images).tolist(), list(range(images)) * seeds)
    by_seed, by_image, middle = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = images * by_seed.var(ddof=1)
    of_images = seeds * by_image.var(ddof=1)
    rest = ((table - by_seed[:, None] - by_image + middle) ** 2).sum() / ((seeds - 1) * (images - 1))
    rows = seeds * images
    margins = [
        stats.t.ppf(0.975, freedom) * (variance / rows) ** 0.5
        for variance, freedom in ((of_seeds, seeds - 1), (of_images - rest, images - 1))
    ]
    margin = (margins[0] ** 2 + margins[1] ** 2) ** 0.5
    assert found.value == pytest.approx(middle)
    assert found.interval == pytest.approx([middle - margin, middle + margin])
    assert 0.05 < found.p < 1


def test_seeds_that_are_alike_by_chance_do_not_make_images_certain() -> None:
    """Two seeds with the same mean: the interval is that over their images, which the seeds share or not."""
    values = np.array([1.0, 0, 1, 1, 0, 1, 1, 1])
    once = mean_over(values, [0] * 8, list(range(8)))
    separate = mean_over(np.tile(values, 2), [0] * 8 + [1] * 8, list(range(16)))
    oracle = stats.ttest_1samp(values, 0)
    assert once.interval == pytest.approx(list(oracle.confidence_interval(0.95)))
    assert once.p == pytest.approx(oracle.pvalue)
    assert 0 < separate.high - separate.low < once.high - once.low
    again = mean_over(np.tile(values, 2), [0] * 8 + [1] * 8, list(range(8)) * 2)
    assert again.interval == pytest.approx(once.interval)  # the same answers to the same questions: nothing is learned


def test_an_image_that_two_seeds_share_counts_once() -> None:
    random = np.random.default_rng(0)
    ease = random.normal(0, 0.3, 30)
    values = np.concatenate([ease + random.normal(0, 0.05, 30) + seed for seed in (0.2, 0.21, 0.19)])
    seeds = np.repeat(range(3), 30).tolist()
    shared, anew = mean_over(values, seeds, list(range(30)) * 3), mean_over(values, seeds, list(range(90)))
    assert shared.high - shared.low > 1.5 * (anew.high - anew.low)
    assert shared.p > anew.p


ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, -1.0]), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40
)


@settings(deadline=None)
@given(ROWS, st.randoms())
def test_order_names_and_more_questions_of_an_image_alike_make_no_difference(rows: list, random) -> None:
    values, seeds, images = zip(*rows, strict=True)
    found = mean_over(np.array(values), list(seeds), list(images))
    mixed = sorted(rows * 3, key=lambda _: random.random())
    others, named, mixed_images = zip(*mixed, strict=True)
    other = mean_over(np.array(others), [7 - seed for seed in named], [f"image {image}" for image in mixed_images])
    assert other.value == pytest.approx(found.value)
    assert (other.interval is None) == (found.interval is None)
    if found.interval:
        assert other.interval == pytest.approx(found.interval)
        assert other.p == pytest.approx(found.p) if found.p is not None else other.p is None


@settings(deadline=None)
@given(ROWS)
def test_the_p_value_is_below_a_twentieth_where_the_interval_leaves_nothing_out(rows: list) -> None:
    values, seeds, images = zip(*rows, strict=True)
    found = mean_over(np.array(values), list(seeds), list(images))
    if found.p is not None and abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_where_nothing_can_be_said_nothing_is() -> None:
    one_image = mean_over(np.array([1.0, 0.0]), [0, 0], ["a", "a"])
    assert (one_image.value, one_image.interval, one_image.p) == (0.5, None, None)
    # The second seed's single image tells nothing of how much images differ there.
    assert mean_over(np.array([1.0, 0.0, 1.0]), [0, 0, 1], ["a", "b", "a"]).interval is None
    alike = mean_over(np.zeros(4), [0, 0, 1, 1], ["a", "b", "a", "b"])
    assert (alike.interval, alike.p) == ([0, 0], 1)
    constant = mean_over(np.full(4, 0.3), [0, 0, 1, 1], ["a", "b", "a", "b"])
    assert constant.interval == pytest.approx([0.3, 0.3])
    assert constant.p is None
    for columns, seeds, images in ((0, [], []), (2, [0], ["a", "b"]), (2, [0, 0], ["a"])):
        with pytest.raises(ValueError, match="Expected rows, and a seed and an image for each"):
            over_trainings(np.ones((columns, 2)), seeds, images, mean)


def test_each_seed_weighs_the_same() -> None:
    found = mean_over(np.array([1.0, 1, 0, 0, 0, 0, 0, 0]), [0, 0, 1, 1, 1, 1, 1, 1], list(range(8)))
    assert (found.value, found.by_seed) == (0.5, (1.0, 0.0))


def test_a_difference_of_any_figure() -> None:
    # Two configurations' labels side by side: the first is always right, the second says yes to everything.
    gold = ["yes", "no"] * 50
    both = np.hstack([label_counts(gold, gold), label_counts(gold, ["yes"] * 100)])
    found = over_trainings(
        both, [0] * 100, list(range(100)), lambda drawn: macro_f1(drawn[:, :6]) - macro_f1(drawn[:, 6:])
    )
    assert found.value == pytest.approx(1 - (2 / 3 + 0) / 2)
    assert found.low > 0
    assert found.p < 0.01


@pytest.mark.parametrize("images", [2, 3])
def test_images_whose_influences_cancel_between_seeds_have_a_p_value_too(images: int) -> None:
    """Their part of the variance is 0, and must not be a rounding error below it."""
    random = np.random.default_rng(7)
    for _ in range(400):
        sizes = random.integers(1, 8, images)
        first = random.integers(0, sizes + 1)
        right = [first, sizes - first, random.integers(0, sizes + 1)]  # the second seed is the first one's opposite
        rows = [
            (float(number < hits), seed, image)
            for seed, of_image in enumerate(right)
            for image, hits in enumerate(of_image)
            for number in range(sizes[image])
        ]
        values, seeds, places = zip(*rows, strict=True)
        found = mean_over(np.array(values), list(seeds), list(places))
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
        assert found.p is None or 0 <= found.p <= 1
