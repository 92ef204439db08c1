"""Abstention: the conformal guarantee by simulation and by its definition; figures against counting one by one."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.abstain import abstention, abstention_rows, conformal_threshold, count_answers
from tasks.records import Prediction

COVERAGES = (0.05, 0.5, 0.8, 0.9, 0.95)


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("count", [3, 19, 60])
def test_new_cases_are_answered_as_often_as_asked(count: int, coverage: float) -> None:
    """Over draws of held-out cases and a new one: at least the coverage, at most 1 / (n + 1) more."""
    chooser = np.random.default_rng(count)
    draws = chooser.beta(4, 1, size=(4000, count + 1))
    given_ = [row[-1] >= conformal_threshold(row[:-1].tolist(), coverage) for row in draws]
    noise = 4 * (coverage * (1 - coverage) / len(draws)) ** 0.5
    assert coverage - noise <= np.mean(given_) <= coverage + 1 / (count + 1) + noise


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), max_size=40), st.integers(1, 100))
def test_it_is_the_conformal_quantile(confidences: list[float], percent: int) -> None:
    """The quantile of Angelopoulos & Bates: the smallest score that enough scores do not exceed."""
    threshold = conformal_threshold(confidences, percent / 100)
    wanted = Fraction(percent, 100) * (len(confidences) + 1)
    fitting = [each for each in confidences if sum(other >= each for other in confidences) >= wanted]
    assert threshold == (max(fitting) if fitting else 0.0)


def test_all_are_answered_at_full_coverage_and_without_held_out_cases() -> None:
    assert conformal_threshold([0.2, 0.9], 1.0) == 0.0
    assert conformal_threshold([], 0.5) == 0.0


def predictions() -> tuple[list[Prediction], list[str]]:
    chooser = np.random.default_rng(0)
    rows = []
    for number in range(60):
        kind: Any = "closed" if number % 3 else "open"
        right = bool(chooser.random() < 0.6)
        answer = ("yes" if right else "no") if kind == "closed" else ("left lung" if right else "liver")
        reference = "yes" if kind == "closed" else "left lung"
        row = Prediction("fed", f"c:{number}", "h", kind, "?", reference, answer, ())
        rows.append(replace(row, confidence=float(chooser.random())))
    return rows, [f"image-{number // 4}" for number in range(60)]


def test_figures_are_those_counted_one_by_one() -> None:
    rows, images = predictions()
    shared = [
        {"hospital": "a", "held_out_cases": 7, "images": count_answers(rows[:40], images[:40], 0.3)},
        {"hospital": "b", "held_out_cases": 9, "images": count_answers(rows[40:], images[40:], 0.6)},
        {"hospital": "empty", "held_out_cases": 0, "images": count_answers([], [], 0.0)},
    ]
    found = abstention(shared, 0.7, seed=1)
    told = [row for row in rows[:40] if (row.confidence or 0) >= 0.3]
    told += [row for row in rows[40:] if (row.confidence or 0) >= 0.6]
    assert found["coverage"]["value"] == pytest.approx(len(told) / 60)
    assert found["abstention_rate"] == pytest.approx(1 - len(told) / 60)
    for kind in ("closed", "open"):
        answered = [row for row in told if row.kind == kind]
        right = sum(row.prediction == row.reference for row in answered)
        assert (found[kind]["n"], found[kind]["answered"]) == (sum(row.kind == kind for row in rows), len(answered))
        assert found[kind]["accuracy"]["value"] == pytest.approx(right / len(answered))
        everything = [row.prediction == row.reference for row in rows if row.kind == kind]
        assert found[kind]["accuracy_if_all_were_answered"]["value"] == pytest.approx(np.mean(everything))
        low, high = found[kind]["accuracy"]["interval"]
        assert low <= found[kind]["accuracy"]["value"] <= high
    assert found["hospitals"]["empty"]["coverage"] is None
    assert found["hospitals"]["a"]["n"] == 40
    headings, *table = abstention_rows(found)
    assert [row[0] for row in table] == ["all hospitals", "a", "b", "empty"]
    assert {len(row) for row in table} == {len(headings)}
    assert table[3][3:] == ("-",) * 6


def test_nothing_told_of_an_image_names_it() -> None:
    rows, images = predictions()
    order = np.random.default_rng(1).permutation(60)
    mixed = count_answers([rows[n] for n in order], [images[n] for n in order], 0.3)
    assert mixed == count_answers(rows, images, 0.3)
