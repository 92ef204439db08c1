"""False updates do what their papers say, and hide what they are said to hide."""

import numpy as np
import pytest
from attacks import ATTACKS, SCALE, attack
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from test_robust import RULES


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


def test_large_attacks_are_as_large_as_said() -> None:
    own, honest = updates(2, 50, 0), updates(6, 50, 1)
    np.testing.assert_allclose(attack("sign-flip", own, honest, 0), -SCALE * own)
    np.testing.assert_allclose(attack("scaled", own, honest, 0), SCALE * own)
    noise = attack("gaussian", own, honest, 0)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), SCALE * np.linalg.norm(honest, axis=1).mean())
    assert abs(noise[0] @ noise[1]) / np.linalg.norm(noise[0]) / np.linalg.norm(noise[1]) < 0.6


@pytest.mark.parametrize(("n", "f"), [(8, 1), (8, 2), (11, 2), (50, 24)])
def test_the_mean_points_away_from_the_honest_one(n: int, f: int) -> None:
    own, honest = updates(f, 30, 0), updates(n - f, 30, 1)
    mean = np.concatenate([honest, attack("inner-product", own, honest, 0)]).mean(0)
    np.testing.assert_allclose(mean, -0.1 * honest.mean(0))


def test_a_little_is_what_the_paper_computes_for_fifty_workers() -> None:
    """Baruch et al., section 3.1: of 50 workers 24 are corrupted, so s = 2, and a normal table has z = 1.43."""
    own, honest = updates(24, 1000, 0), updates(26, 1000, 1)
    moved = (honest.mean(0) - attack("little-is-enough", own, honest, 0)[0]) / honest.std(0)
    np.testing.assert_allclose(moved, norm.ppf(24 / 26))
    assert moved[0] == pytest.approx(1.43, abs=0.005)


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
