"""How a hospital's held-out cases choose number of cases, floor, and mixture."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.answer.tuning import PLAIN, TEMPERATURES, WEIGHTS, HeldOut, tune
from tasks.engine.mixture import Memory


def row(right: int, known: list[int], near: list[float], sure: list[float]) -> list[HeldOut]:
    """A case whose answer is one token, under prompts with no, one, two, ... of the retrieved cases."""
    return [
        HeldOut((right,), (sure[count],), Memory(tuple((each,) for each in known[:count]), tuple(near[:count])))
        for count in range(len(known) + 1)
    ]


cases = st.integers(0, 3).flatmap(
    lambda count: st.builds(
        row,
        st.integers(0, 2),
        st.lists(st.integers(0, 2), min_size=count, max_size=count),
        st.lists(st.floats(-1, 1), min_size=count, max_size=count).map(lambda near: sorted(near, reverse=True)),
        st.lists(st.floats(0.01, 1), min_size=count + 1, max_size=count + 1),
    )
)


def loss(held_out: HeldOut, weight: float, heat: float) -> float:
    """Of an answer of one token, written down from the definition."""
    (token,), (likely,) = held_out.answer, held_out.probabilities
    votes = [math.exp(near / heat) for near in held_out.memory.similarities]
    if votes:
        right = sum(vote for vote, (each,) in zip(votes, held_out.memory.answers, strict=True) if each == token)
        likely = (1 - weight) * likely + weight * right / sum(votes)
    return -math.log(likely)


@settings(max_examples=60, deadline=None)
@given(st.lists(cases, min_size=1, max_size=4))
def test_no_setting_that_is_tried_is_better(rows: list[list[HeldOut]]) -> None:
    found = tune(rows, 3, -1, chooses_context=True, mixes=True)
    floors = {-1.0, *(near for each in rows for near in each[-1].memory.similarities)}
    tried = []
    for k, floor, (weight, heat) in product(range(4), floors, [(0.0, 1.0), *product(WEIGHTS, TEMPERATURES)]):
        prompts = [each[sum(near >= floor for near in each[-1].memory.similarities[:k])] for each in rows]
        tried.append(sum(loss(prompt, weight, heat) for prompt in prompts) / len(rows))
    # Floors between two similarities choose the same prompts as the upper one, so the oracle tries at least as many.
    assert found.loss is not None and found.untuned is not None
    assert min(tried) - 1e-9 <= found.loss <= found.untuned + 1e-9
    prompts = [each[sum(near >= found.floor for near in each[-1].memory.similarities[: found.k])] for each in rows]
    reached = sum(loss(prompt, found.weight, found.temperature) for prompt in prompts) / len(rows)
    assert found.loss == pytest.approx(reached)


def test_cases_that_mislead_are_not_put_into_the_prompt() -> None:
    rows = [row(0, [1], [0.9], [0.9, 0.1]) for _ in range(5)]
    assert tune(rows, 1, -1, chooses_context=True, mixes=True).k == 0


def test_far_cases_that_mislead_are_kept_out_by_a_floor() -> None:
    rows = [row(0, [0], [0.9], [0.3, 0.95]) for _ in range(8)] + [row(0, [1], [0.1], [0.8, 0.05]) for _ in range(8)]
    found = tune(rows, 1, -1, chooses_context=True, mixes=False)
    assert found.k == 1
    assert 0.1 < found.floor <= 0.9
    assert found.weight == 0


def test_answers_that_are_right_are_mixed_in_and_wrong_ones_are_not() -> None:
    right = tune([row(0, [0], [0.9], [0.3, 0.3])] * 4, 1, -1, chooses_context=False, mixes=True)
    wrong = tune([row(0, [1], [0.9], [0.3, 0.3])] * 4, 1, -1, chooses_context=False, mixes=True)
    assert right.weight == max(WEIGHTS)
    assert wrong.weight == PLAIN.weight == 0


def test_the_study_decides_what_is_not_chosen() -> None:
    rows = [row(0, [1, 1], [0.9, 0.8], [0.9, 0.2, 0.1])[-1:]] * 3
    found = tune(rows, 2, 0.25, chooses_context=False, mixes=True)
    assert (found.k, found.floor, found.cases) == (2, 0.25, 3)


def test_without_held_out_cases_it_is_the_studys_setting() -> None:
    found = tune([], 5, -1, chooses_context=True, mixes=True)
    assert (found.k, found.floor, found.weight, found.cases, found.loss) == (5, -1, 0, 0, None)


def test_a_floor_of_the_study_is_never_undercut() -> None:
    rows = [row(0, [0, 0], [0.9, 0.4], [0.2, 0.5, 0.9]) for _ in range(3)]
    assert tune(rows, 2, 0.5, chooses_context=True, mixes=False).floor >= 0.5
