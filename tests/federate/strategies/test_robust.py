"""Robust rules against their papers, Flower and ByzFL; what bad hospitals can do to them; what is refused."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from engine_samples import same
from flwr.server.strategy import aggregate as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from record_byzfl import CASES

from tasks.errors import StudyError
from tasks.federate import distances
from tasks.federate.distances import Deltas, Numbers, in_memory, squared_distances
from tasks.federate.robust import Robust
from tasks.federate.state import ServerState, Update
from tasks.federate.strategies import (
    bulyan,
    centered_clipping,
    geometric_median,
    krum,
    median,
    multi_krum,
    norm_bounded,
    trimmed_mean,
)
from tasks.federate.strategies.strategy import choose
from tasks.settings import StrategySettings

Rule = Callable[[Numbers, int], Numbers]


STREAMED: dict[str, Callable[[Deltas, int], Numbers]] = {
    "median": median.median,
    "trimmed-mean": trimmed_mean.trimmed_mean,
    "krum": krum.krum,
    "multi-krum": multi_krum.multi_krum,
    "bulyan": bulyan.bulyan,
    "geometric-median": geometric_median.geometric_median,
    "norm-bounded": partial(norm_bounded.norm_bounded, multiple=1),
    "centered-clipping": partial(centered_clipping.centered_clipping, multiple=1),
}


def of_rows(rule: Callable[[Deltas, int], Numbers]) -> Rule:
    """A rule of deltas in memory."""
    return lambda rows, bad: rule(in_memory(rows), bad)


RULES: dict[str, Rule] = {name: of_rows(rule) for name, rule in STREAMED.items()}
LEAST = {"krum": (2, 3), "multi-krum": (2, 3), "bulyan": (4, 3)}
SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1e-4, 1e-2, 1.0, 1e3])
every_rule = pytest.mark.parametrize("name", RULES)


def least(name: str, bad: int) -> int:
    factor, more = LEAST.get(name, (2, 1))
    return factor * bad + more


def draw(seed: int, hospitals: int, scale: float, width: int = 3) -> Numbers:
    return np.random.default_rng(seed).normal(size=(hospitals, width)) * scale


def mixed(rows: Numbers, bad: int) -> Numbers:
    (block,) = distances.mixed(in_memory(rows), bad).blocks()
    return block


def spread(rows: Numbers) -> float:
    return distances.spread(squared_distances(in_memory(rows)))


def chosen(name: str, **given: Any) -> Robust:
    strategy = choose(StrategySettings(strategy=name, **given))  # type: ignore[arg-type]
    assert isinstance(strategy, Robust)
    return strategy


@every_rule
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, bad=st.integers(0, 2), more=st.integers(0, 4), scale=SCALES)
def test_each_rule_is_that_of_its_paper(name: str, seed: int, bad: int, more: int, scale: float) -> None:
    deltas = draw(seed, least(name, bad) + more, scale)
    before = deltas.copy()
    expected = getattr(oracles, name.replace("-", "_"))(deltas.tolist(), bad)
    # The geometric median is smoothed below a thousandth of the spread, and its oracle's search is not exact.
    tolerance = 5e-3 if name == "geometric-median" else 1e-9
    np.testing.assert_allclose(RULES[name](deltas, bad), expected, rtol=0, atol=tolerance * scale)
    np.testing.assert_array_equal(deltas, before)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, bad=st.integers(0, 2), more=st.integers(1, 5), scale=SCALES)
def test_mixing_and_spread_are_those_of_their_papers(seed: int, bad: int, more: int, scale: float) -> None:
    deltas = draw(seed, 2 * bad + more, scale)
    np.testing.assert_allclose(mixed(deltas, bad), oracles.mixed(deltas.tolist(), bad), atol=1e-9 * scale)
    assert spread(deltas) == pytest.approx(oracles.spread(deltas.tolist()))


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, bad=st.integers(1, 2), more=st.integers(0, 3))
def test_flower_makes_the_same(seed: int, bad: int, more: int) -> None:
    deltas = np.array(oracles.central_first(draw(seed, least("bulyan", bad) + more, 1.0, width=6).tolist()))

    def sent() -> list[tuple[list[Any], int]]:
        """Two layers each; Flower's bulyan empties this list."""
        return [([row[:2].reshape(1, 2), row[2:]], 1) for row in deltas]

    made = {
        "median": flower.aggregate_median(sent()),
        "trimmed-mean": flower.aggregate_trimmed_avg(sent(), (bad + 0.5) / len(deltas)),
        "krum": flower.aggregate_krum(sent(), bad, 0),
        "multi-krum": flower.aggregate_krum(sent(), bad, len(deltas) - bad),
        "bulyan": flower.aggregate_bulyan(sent(), bad, flower.aggregate_krum, to_keep=0),
    }
    for name, layers in made.items():
        expected = np.concatenate([layer.ravel() for layer in layers])
        np.testing.assert_allclose(RULES[name](deltas, bad), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", json.loads(CASES.read_text(encoding="utf-8")), ids=lambda case: case["byzantine"])
def test_byzfl_made_the_same(case: dict[str, Any]) -> None:
    deltas, bad, scale = np.array(case["deltas"]), case["byzantine"], case["tau"]
    clipped = of_rows(partial(centered_clipping.centered_clipping, multiple=scale / spread(deltas)))
    for name, expected in case["made"].items():
        rule = {"nnm": mixed, "centered-clipping": clipped}.get(name) or RULES[name]
        tolerance = 1e-3 if name == "geometric-median" else 1e-9
        np.testing.assert_allclose(rule(deltas, bad), expected, rtol=0, atol=tolerance * scale)


@every_rule
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, scale=SCALES, factor=st.floats(1e-6, 1e6), shuffling=st.randoms(use_true_random=False))
def test_order_place_and_scale_do_not_matter(name: str, seed: int, scale: float, factor: float, shuffling: Any) -> None:
    deltas = draw(seed, least(name, 1) + 2, scale)
    made, close = RULES[name](deltas, 1), {"rtol": 0, "atol": 1e-6 * scale}
    order = list(range(len(deltas)))
    shuffling.shuffle(order)
    np.testing.assert_allclose(RULES[name](deltas[order], 1), made, **close)
    np.testing.assert_allclose(RULES[name](factor * deltas, 1) / factor, made, **close)
    if name != "norm-bounded":  # the length of an update is meant to count
        shift = scale * np.array([5.0, -3.0, 1.0])
        np.testing.assert_allclose(RULES[name](deltas + shift, 1) - shift, made, **close)


@every_rule
@pytest.mark.parametrize("mixing", [False, True])
@settings(deadline=None, max_examples=40)
@given(
    seed=SEEDS,
    bad=st.integers(1, 3),
    more=st.integers(0, 3),
    scale=SCALES,
    far=st.sampled_from([0.0, 0.5, 2.0, 1e3, 1e9]),
    together=st.booleans(),
)
def test_bad_hospitals_stay_outvoted(
    name: str, mixing: bool, seed: int, bad: int, more: int, scale: float, far: float, together: bool
) -> None:
    """Up to the breakdown point, whatever they send, together or apart."""
    good = draw(seed, least(name, bad) + more - bad, scale) + scale
    attack = far * draw(seed + 1, 1 if together else bad, scale)
    deltas = np.concatenate([np.broadcast_to(attack, (bad, 3)), good])
    made = RULES[name](mixed(deltas, bad) if mixing else deltas, bad)
    if name in ("median", "trimmed-mean") and not mixing:
        assert (good.min(axis=0) <= made).all() and (made <= good.max(axis=0)).all()
    diameter = max(np.linalg.norm(one - other) for one in good for other in good)
    reach = 2 * len(deltas) * diameter  # of no use to an attacker who is a billion times as far away
    if name == "norm-bounded":
        reach += np.linalg.norm(good, axis=1).max() * 2
    assert np.linalg.norm(made - good.mean(axis=0)) <= reach


@every_rule
@pytest.mark.parametrize("mixing", [False, True])
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, bad=st.integers(0, 2), scale=SCALES, cuts=st.sets(st.integers(1, 8), min_size=1))
def test_some_columns_at_a_time_make_the_same(
    name: str, mixing: bool, seed: int, bad: int, scale: float, cuts: set[int]
) -> None:
    """Rules that choose hospitals are left out with mixing: it makes some alike, and then the last digit decides."""
    if mixing and name in LEAST:
        return
    rows = draw(seed, least(name, bad) + 1, scale, width=9)
    parts = [np.ascontiguousarray(part) for part in np.split(rows, sorted(cuts), axis=1)]
    deltas, rule = Deltas(len(rows), lambda: iter(parts)), STREAMED[name]
    found = rule(distances.mixed(deltas, bad) if mixing else deltas, bad)
    whole = RULES[name](mixed(rows, bad) if mixing else rows, bad)
    if name in ("median", "trimmed-mean") and not mixing:
        np.testing.assert_array_equal(found, whole)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-8 * scale)


def test_most_hospitals_agree() -> None:
    """The spread is 0 then."""
    deltas = np.array([[1.0, 2.0], [1.0, 2.0], [9.0, 9.0]])
    for name in ("geometric-median", "centered-clipping", "median"):
        np.testing.assert_allclose(RULES[name](deltas, 1), [1.0, 2.0], rtol=1e-15)
    assert (RULES["norm-bounded"](np.zeros((3, 2)), 1) == 0).all()


SHAPES = {"b": (2, 3), "a": (4,)}


def state(deltas: Numbers, start: float = 0.0) -> dict[str, torch.Tensor]:
    """Of `(10,)`, tensors in the order of their names: `a`, then `b`."""
    values = torch.from_numpy(deltas + start).float()
    return {"b": values[4:].view(2, 3), "a": values[:4]}


@every_rule
def test_the_global_tensors_move_by_the_rule_of_all_tensors_together(name: str) -> None:
    deltas, start = draw(0, 8, 0.01, width=10), state(np.linspace(-1, 1, 10))
    sent = [Update(f"h{n}", 0, 10**n, 0.5, {"adapter": state(row, 0.25)}) for n, row in enumerate(deltas)]
    made = chosen(name).aggregate(ServerState({"adapter": start}), sent)
    exact = np.stack(
        [
            np.concatenate([(update.parts["adapter"][each].double() - start[each]).numpy().ravel() for each in "ab"])
            for update in sent
        ]
    )
    expected = np.linspace(-1, 1, 10) + getattr(oracles, name.replace("-", "_"))(exact.tolist(), 1)
    found = made.groups["adapter"]
    if name != "geometric-median":  # its oracle finds no minimum of ten coordinates
        np.testing.assert_allclose(np.concatenate([found[each].numpy().ravel() for each in "ab"]), expected, atol=1e-6)
    assert {each: tuple(tensor.shape) for each, tensor in found.items()} == SHAPES
    claimed = [Update(each.hospital, 0, 1, 0.5, each.parts) for each in sent]
    assert same(chosen(name).aggregate(ServerState({"adapter": start}), claimed).groups["adapter"], found)


def test_updates_are_mixed_before_the_rule() -> None:
    deltas, start = draw(1, 8, 0.01, width=10), state(np.zeros(10))
    sent = [Update(f"h{n}", 0, 1, 0.5, {"adapter": state(row)}) for n, row in enumerate(deltas)]
    made = chosen("median", pre_aggregation="nnm", byzantine=2).aggregate(ServerState({"adapter": start}), sent)
    expected = oracles.median(oracles.mixed(deltas.tolist(), 2), 2)
    np.testing.assert_allclose(made.groups["adapter"]["a"].numpy(), expected[:4], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "bad", "count", "needed", "instead"),
    [
        ("krum", 3, 8, 9, ", federation.byzantine=2,"),
        ("multi-krum", 1, 4, 5, ""),
        ("bulyan", 2, 8, 11, ", federation.byzantine=1,"),
        ("median", 2, 4, 5, ", federation.byzantine=1,"),
        ("trimmed-mean", 1, 2, 3, ""),
        ("geometric-median", 1, 1, 3, ""),
    ],
)
def test_too_few_hospitals_are_refused(name: str, bad: int, count: int, needed: int, instead: str) -> None:
    strategy = chosen(name, byzantine=bad)
    with pytest.raises(StudyError) as refused:
        strategy.check_hospitals(count)
    assert str(refused.value) == (
        f"Expected at least {needed} hospitals for federation.strategy={name} with federation.byzantine={bad}, found "
        f"{count}: take more hospitals{instead} or another strategy."
    )
    strategy.check_hospitals(needed)


def test_a_trim_of_nothing_is_refused() -> None:
    with pytest.raises(StudyError, match=r"at least 1 for .*=trimmed-mean, which takes 3 hospitals, found 0"):
        chosen("trimmed-mean", byzantine=0)


@every_rule
def test_hospitals_turned_away_leave_fewer_bad_ones(name: str) -> None:
    """With 2 of 8 at the door: what is left of the tolerance is at least what is left of the bad ones."""
    deltas, start = draw(2, 6, 0.01, width=10), state(np.zeros(10))
    sent = [Update(f"h{n}", 0, 1, 0.5, {"adapter": state(row)}) for n, row in enumerate(deltas)]
    bad = {"bulyan": 1}.get(name, 2)
    made = chosen(name, byzantine=bad).aggregate(ServerState({"adapter": start}), sent)
    left = {"krum": 1, "multi-krum": 1, "bulyan": 0}.get(name, 2)
    expected = RULES[name](np.stack([np.concatenate([row[:4], row[4:]]) for row in deltas]), left)
    np.testing.assert_allclose(made.groups["adapter"]["a"].numpy(), expected[:4], atol=1e-7)
