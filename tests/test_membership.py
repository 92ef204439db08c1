"""Membership inference: its statistics against closed forms, brute force and SciPy, on losses that are drawn."""

import numpy as np
import pytest
from engine_samples import CASES
from scipy.stats import norm

from benchmarks.inference_attacks import (
    auc,
    density,
    lira,
    loss_threshold,
    mean_over_adapters,
    scaled,
    true_positives,
    with_interval,
)
from benchmarks.membership import Pool, halves, losses_of, mechanism, noise_multiplier
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.prompt import build_prompts
from tasks.engine.train import mean_loss
from tasks.engine.vision import Features
from tasks.federate.privacy.accounting import epsilon
from tasks.settings import ContextSettings, FederationSettings, PrivacySettings

ADAPTERS, CASES_DRAWN, EASE = 64, 2000, 3.0
ATTACKED = slice(6)
"""Adapters whose figures are averaged; the others are shadows alone."""


def drawn(shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses whose scaled form is normal: a case's own ease, plus 1 of noise, plus `shift` where it was trained on."""
    rng = np.random.default_rng(0)
    members = rng.random((ADAPTERS, CASES_DRAWN)) < 0.5
    confidence = EASE * rng.normal(size=CASES_DRAWN) + shift * members + rng.normal(size=members.shape)
    return np.log1p(np.exp(-confidence)), members


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_attacks_tell_as_much_as_two_normals_can_be_told_apart(shift: float) -> None:
    losses, members = drawn(shift)
    weights = np.ones(CASES_DRAWN)
    found = {attack: attack(losses, members)[ATTACKED] for attack in (loss_threshold, lira)}
    attacked = members[ATTACKED]
    for attack, spread in ((loss_threshold, np.hypot(1, EASE)), (lira, 1.0)):
        expected = norm.cdf(shift / (np.sqrt(2) * spread))
        assert mean_over_adapters(auc, found[attack], attacked, weights) == pytest.approx(expected, abs=0.02)
        sure = norm.cdf(shift / spread - norm.ppf(0.99))
        assert mean_over_adapters(true_positives, found[attack], attacked, weights) == pytest.approx(sure, abs=0.03)


def test_scaled_losses_are_log_odds() -> None:
    p = np.array([1e-9, 0.1, 0.5, 0.999999])
    assert scaled(-np.log(p)) == pytest.approx(np.log(p / (1 - p)), rel=1e-6)
    assert np.isfinite(scaled(np.array([0.0, 800.0]))).all()  # a sure answer, and one that cannot be


def test_the_target_is_not_among_its_own_shadows() -> None:
    """With a target's membership told wrongly, its own scores stay as they are."""
    losses, members = drawn(1.0)
    other = members.copy()
    other[0] = ~other[0]
    one, two = (lira(losses[:8], each[:8]) for each in (members, other))
    assert (one[0] == two[0]).all() and (one[1] != two[1]).any()


def test_densities_are_scipys() -> None:
    rng = np.random.default_rng(1)
    values, chosen, at = rng.normal(3, 2, (6, 5)), rng.random((6, 5)) < 0.6, rng.normal(3, 2, 5)
    chosen[:, 0] = False  # no shadow had the first case
    chosen[:2, 1:] = True
    rows = [values[chosen[:, case], case] for case in range(5)]
    means = [each.mean() if len(each) else values[chosen].mean() for each in rows]
    squares = sum(((each - mean) ** 2).sum() for each, mean in zip(rows, means, strict=True))
    width = np.sqrt(squares / sum(max(len(each) - 1, 0) for each in rows))
    expected = [norm(mean, width).logpdf(value) for mean, value in zip(means, at, strict=True)]
    assert density(values, chosen, at) == pytest.approx(expected)


def test_figures_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(2)
    scores, members = rng.integers(0, 60, 400).astype(float), rng.random(400) < 0.3
    scores[members] += 15
    repeats = rng.integers(1, 4, 400)
    for kept in (np.arange(400), np.repeat(np.arange(400), repeats)):
        true, false = scores[kept][members[kept]], scores[kept][~members[kept]]
        wins = (true[:, None] > false).mean() + 0.5 * (true[:, None] == false).mean()
        sure = max((true >= t).mean() for t in [*scores, 1e9] if (false >= t).mean() <= 0.01)
        weights = None if len(kept) == 400 else repeats.astype(float)
        assert auc(scores, members, weights) == pytest.approx(wins)
        assert true_positives(scores, members, weights) == pytest.approx(sure)


def test_intervals_draw_whole_images() -> None:
    """Cases of an image that are all alike tell no more than one of them."""
    rng = np.random.default_rng(3)
    members, scores = rng.random((1, 150)) < 0.5, rng.normal(size=(1, 150))
    alone = with_interval(auc, scores, members, list(range(150)))
    tenfold = with_interval(auc, np.repeat(scores, 10, 1), np.repeat(members, 10, 1), [n // 10 for n in range(1500)])
    assert tenfold == pytest.approx(alone)
    assert alone[2] - alone[1] > 0.05


def pool(examples: list, features: Features) -> Pool:  # type: ignore[type-arg]
    """Three hospitals of 4, 6 and 8 images, with three cases each."""
    hospitals = np.repeat([0, 1, 2], [12, 18, 24])
    return Pool(features, [], examples, hospitals, np.arange(54) // 3, [])


def test_half_of_each_hospitals_images_is_trained_on(features: Features) -> None:
    made = pool([], features)
    members = halves(made, 20)
    by_image = members.reshape(20, 18, 3)
    assert (by_image.all(2) == by_image.any(2)).all()
    assert [members[:, made.hospitals == each].sum(1).tolist() for each in range(3)] == [[6] * 20, [9] * 20, [12] * 20]
    assert len({row.tobytes() for row in members}) > 15


def test_no_hospital_spends_more_than_epsilon(features: Features) -> None:
    made = pool([], features)
    members = halves(made, 3)
    privacy = PrivacySettings(unit="example", epsilon=8, accountant="rdp")
    federation = FederationSettings(privacy=privacy, batch_size=2)
    sigma = noise_multiplier(made, members, federation)
    assert sigma is not None
    assert noise_multiplier(made, members, FederationSettings()) is None
    spent = [
        epsilon(sigma, of.rate, federation.rounds * of.steps, privacy.delta, "rdp")
        for of in (mechanism(units, federation, sigma) for units in (6, 9, 12))
    ]
    assert 7 < spent[0] <= 8 and max(spent) == spent[0]


def test_losses_are_those_of_training_case_by_case(engine: Engine, features: Features) -> None:
    examples = encode(engine.base, features, build_prompts(CASES, CASES, [], ContextSettings(k=0)))
    each = losses_of(engine, features, examples, tokens=200)
    alone = [mean_loss(engine, features, [example], 8192) for example in examples]
    assert each == pytest.approx([loss * tokens for loss, tokens in alone], rel=1e-4)
