"""Shapley values against their definition over subsets, and by the axioms that define them."""

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.federate.contributions.coalitions import contributions
from tasks.federate.contributions.shapley import EXACT, Coalition, coalitions, orders, shapley

NAMES = ("east", "north", "south", "west")


def game(names: tuple[str, ...], seed: int) -> dict[Coalition, float]:
    drawn = random.Random(seed)
    groups = [frozenset(each) for size in range(len(names) + 1) for each in itertools.combinations(names, size)]
    return {group: drawn.gauss(0, 1) for group in groups}


def by_definition(names: tuple[str, ...], value: dict[Coalition, float], name: str) -> float:
    """The sum over subsets without the hospital, weighted by |S|! (n - |S| - 1)! / n!."""
    n = len(names)
    return sum(
        math.factorial(len(group)) * math.factorial(n - len(group) - 1) / math.factorial(n)
        * (value[group | {name}] - worth)
        for group, worth in value.items()
        if name not in group
    )  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_values_are_those_of_the_definition_and_sum_to_the_whole(count: int, seed: int) -> None:
    names = tuple(f"h{n}" for n in range(count))
    value = game(names, seed)
    found = shapley(orders(names, 1, 0), value.__getitem__)
    for name in names:
        assert found[name][0] == pytest.approx(by_definition(names, value, name), abs=1e-12)
    whole = value[frozenset(names)] - value[frozenset()]
    assert sum(mean for mean, _ in found.values()) == pytest.approx(whole, abs=1e-12)


def test_who_adds_the_same_gets_the_same_and_who_adds_nothing_gets_nothing() -> None:
    def value(group: Coalition) -> float:
        """North and south are copies; west is never of use."""
        return math.sqrt(len(group & {"north", "south"})) + 3 * ("east" in group)

    found = {name: mean for name, (mean, _) in shapley(orders(NAMES, 1, 0), value).items()}
    assert found["north"] == pytest.approx(found["south"], abs=1e-12)
    assert found["north"] == pytest.approx(math.sqrt(2) / 2) and found["east"] == pytest.approx(3)
    assert found["west"] == 0


def test_drawn_orders_tell_how_sure_they_are() -> None:
    names = tuple(f"h{n:02d}" for n in range(EXACT + 4))
    lengths = {name: place / 10 for place, name in enumerate(names)}

    def value(group: Coalition) -> float:
        return sum(lengths[name] for name in group) ** 2

    ways = orders(names, 400, 5)
    assert len(ways) == 400 and ways == orders(names, 400, 5) != orders(names, 400, 6)
    found = shapley(ways, value)
    assert sum(mean for mean, _ in found.values()) == pytest.approx(value(frozenset(names)))
    whole = sum(lengths.values())
    off = []
    for name, (mean, error) in found.items():
        exact = lengths[name] * whole  # of the square of a sum
        assert abs(mean - exact) <= 4 * error + 1e-12
        off += [(mean - exact) / error] if error else []
    assert 0.4 < sum(each**2 for each in off) / len(off) < 2.5
    assert found["h11"][1] > found["h01"][1] > 0


def test_every_coalition_that_is_asked_for_is_measured_once() -> None:
    groups = coalitions(orders(NAMES, 1, 0))
    assert len(groups) == len(set(groups)) == 16 and groups[0] == frozenset() and groups[-1] == frozenset(NAMES)
    many = tuple(f"h{n}" for n in range(10))
    drawn = coalitions(orders(many, 3, 0))
    assert {frozenset({name}) for name in many} <= set(drawn)
    assert {frozenset(many) - {name} for name in many} <= set(drawn)


def measured(hospital: str, tokens: int, losses: dict[Coalition, float]) -> dict[str, Any]:
    groups = coalitions(orders(("a", "b"), 1, 0))
    return {
        "hospital": hospital,
        "round": 3,
        "tokens": tokens,
        "samples": {"a": 20, "b": 5},
        "left_out": {},
        "coalitions": [sorted(group) for group in groups],
        "losses": [losses[group] for group in groups],
    }


def test_losses_of_all_hospitals_count_by_their_tokens() -> None:
    none, a, b, both = frozenset[str](), frozenset("a"), frozenset("b"), frozenset("ab")
    one = measured("a", 30, {none: 2.0, a: 1.0, b: 2.0, both: 1.0})
    other = measured("b", 10, {none: 2.0, a: 2.0, b: 1.6, both: 1.2})
    rows, about = contributions([one, other, measured("c", 0, {none: 0, a: 0, b: 0, both: 0})], 64, 0)
    assert about == {"round": 3, "loss_before": 2.0, "loss_after": 1.05, "tokens": 40, "orders": 2, "exact": True}
    first, second = rows
    assert (first.hospital, first.samples, first.standard_error) == ("a", 20, None)
    assert first.alone == pytest.approx(0.75) and second.alone == pytest.approx(0.1)
    assert first.leave_one_out == pytest.approx(0.85) and second.leave_one_out == pytest.approx(0.2)
    assert first.shapley == pytest.approx(0.8) and second.shapley == pytest.approx(0.15)


def test_without_held_out_cases_there_is_nothing_to_measure() -> None:
    groups = coalitions(orders(("a", "b"), 1, 0))
    with pytest.raises(StudyError, match=r"found no hospital .* raise federation\.holdout\.$"):
        contributions([measured("a", 0, dict.fromkeys(groups, 0.0))], 64, 0)
