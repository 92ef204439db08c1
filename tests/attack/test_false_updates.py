"""False updates do what their papers say, and hide what they are said to hide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from test_robust import RULES

from tasks.attack.updates import ATTACKS, LENGTH, attack, forged, hidden_shift
from tasks.settings import StrategySettings


def updates(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0.02, 0.01, (n, d))


@pytest.mark.parametrize("kind", ATTACKS)
@settings(deadline=None, max_examples=30)
@given(f=st.integers(1, 3), h=st.integers(3, 9), d=st.integers(1, 20), seed=st.integers(0, 999))
def test_the_same_seed_gives_the_same_rows_and_nothing_given_is_changed(
    kind: str, f: int, h: int, d: int, seed: int
) -> None:
    own, honest = updates(f, d, seed), updates(h, d, seed + 1)
    before = own.copy(), honest.copy()
    found = attack(kind, own, honest, seed)
    assert found.shape == (f, d) and found.dtype == np.float64
    assert np.array_equal(found, attack(kind, own, honest, seed), equal_nan=True)
    assert np.array_equal(own, before[0]) and np.array_equal(honest, before[1])


def test_enlarged_attacks_are_as_long_as_said_and_the_door_lets_them_in() -> None:
    own, honest = updates(2, 50, 0), updates(6, 50, 1)
    median = np.median(np.linalg.norm(honest, axis=1))
    directions = own / np.linalg.norm(own, axis=1, keepdims=True)
    np.testing.assert_allclose(attack("sign-flip", own, honest, 0), -LENGTH * median * directions)
    np.testing.assert_allclose(attack("scaled", own, honest, 0), LENGTH * median * directions)
    noise = attack("gaussian", own, honest, 0)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), LENGTH * median)
    assert abs(noise[0] @ noise[1]) / np.linalg.norm(noise[0]) / np.linalg.norm(noise[1]) < 0.6
    assert StrategySettings().max_norm > LENGTH


@pytest.mark.parametrize(("n", "f"), [(8, 1), (8, 2), (11, 2), (50, 24)])
def test_the_mean_is_the_honest_one_turned_round(n: int, f: int) -> None:
    own, honest = updates(f, 30, 0), updates(n - f, 30, 1)
    mean = np.concatenate([honest, attack("inner-product", own, honest, 0)]).mean(0)
    np.testing.assert_allclose(mean, -honest.mean(0))


@pytest.mark.parametrize(("n", "f"), [(8, 1), (8, 2)])
def test_in_the_mean_a_replaced_model_counts_whole(n: int, f: int) -> None:
    own, honest = updates(f, 30, 0), updates(n - f, 30, 1)
    mean = np.concatenate([0 * honest, attack("backdoor", own, honest, 0)]).mean(0)
    np.testing.assert_allclose(mean, own.mean(0))


def test_a_forged_count_decides_a_weighted_mean_alone() -> None:
    own, honest = updates(1, 30, 0), updates(7, 30, 1)
    rows = np.concatenate([attack("forged-counts", own, honest, 0), honest])
    mean = np.average(rows, axis=0, weights=[forged(80), *[80] * 7])
    np.testing.assert_allclose(mean, -own[0], rtol=1e-3, atol=1e-5)


def test_a_little_is_what_the_paper_computes_for_fifty_workers() -> None:
    """Baruch et al., section 3.1: of 50 workers 24 are corrupted, so s = 2, and a normal table has z = 1.43."""
    assert hidden_shift(50, 24) == pytest.approx(norm.ppf(24 / 26)) == pytest.approx(1.43, abs=0.005)
    assert hidden_shift(8, 1) == hidden_shift(8, 2) == 0


@pytest.mark.parametrize(("n", "f", "z"), [(8, 2, 1.5), (50, 24, 1.5), (200, 99, norm.ppf(99 / 101))])
def test_attackers_send_the_honest_mean_less_some_deviations(n: int, f: int, z: float) -> None:
    own, honest = updates(f, 100, 0), updates(n - f, 100, 1)
    false = attack("little-is-enough", own, honest, 0)
    np.testing.assert_allclose((honest.mean(0) - false) / honest.std(0), np.full((f, 100), z))


def test_mimics_send_one_honest_update_the_most_unlike() -> None:
    honest = updates(6, 40, 1)
    honest[4] += 0.5
    found = attack("mimic", updates(2, 40, 0), honest, 0)
    assert np.array_equal(found, np.stack([honest[4]] * 2))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", sorted(set(ATTACKS) - {"nan"}))  # the door turns that away
@pytest.mark.parametrize("seed", range(5))
def test_robust_rules_go_where_honest_hospitals_go(name: str, kind: str, seed: int) -> None:
    """11 hospitals of which 2 attack: Bulyan bears no more. A plain mean is turned round by some of these attacks."""
    rng = np.random.default_rng(seed)
    together, own = rng.normal(size=200), rng.normal(size=(11, 200)) * 0.5
    deltas = 1e-2 * (together + own)
    honest = deltas[2:]
    false = attack(kind, deltas[:2], honest, seed)
    all_sent = np.concatenate([false, honest])
    towards = honest.mean(0) / np.linalg.norm(honest.mean(0))
    made = RULES[name](all_sent, 2)
    assert made @ towards > 0.5 * np.linalg.norm(honest.mean(0))
    if kind in ("sign-flip", "inner-product"):
        assert all_sent.mean(0) @ towards < 0
