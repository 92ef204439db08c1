"""Gates: what a run has to show before it is served, from its results alone."""

from typing import Any

import pytest

from tasks.promote.gates import gates, leakage
from tasks.settings.promotion import PromotionSettings

NAME = "fed+rag"
COUNTS = {"same_image": 5, "same_patient": None}
PUBLISHED = {"disjoint": "none", "audited_test_cases": 50, "published_split_shares": COUNTS}
BLANK = {"alterations": {"image_blank": {"kept": 0.75}}}


def results(right: dict[str, float] | None = None, **more: Any) -> Any:
    """The parts of a run's results that gates look at."""
    scores = [
        {"configuration": NAME, "group": "hospital", "measure": "correct", "value": hospital, "score": score}
        for hospital, score in (right or {}).items()
    ]
    found = {"configurations": {NAME: {}}, "scores": scores, "calibration": {}, "reliance": {}, "privacy": None}
    return found | {"split": {"disjoint": "image"}} | more


def test_of(difference: float, low: float, high: float) -> Any:
    return [{"measure": "correct", "difference": difference, "interval": (low, high)}]


test_of.__test__ = False  # type: ignore[attr-defined]


def passed(settings: dict[str, Any], found: Any, current: Any = None, tests: Any = ()) -> dict[str, bool]:
    return {gate.name: gate.passed for gate in gates(PromotionSettings(**settings), found, current, tests)}


def test_without_a_current_run_and_limits_every_gate_is_open() -> None:
    assert passed({}, results()) == {}


@pytest.mark.parametrize(
    ("interval", "promoted"), [((-0.2, -0.01), False), ((-0.2, 0.0), True), ((-0.1, 0.1), True), ((0.1, 0.2), True)]
)
def test_a_run_is_worse_if_the_interval_of_the_difference_is_wholly_below_zero(
    interval: tuple[float, float], promoted: bool
) -> None:
    tests = test_of(sum(interval) / 2, *interval)
    assert passed({}, results(), results(), tests) == {"not worse than the current run": promoted}
    assert passed({"not_worse": False}, results(), results(), tests) == {}


@pytest.mark.parametrize("tests", ["other cases", [], [{"measure": "correct", "difference": 0.0, "interval": None}]])
def test_a_comparison_that_cannot_be_made_is_not_passed(tests: Any) -> None:
    assert passed({}, results(), results(), tests) == {"not worse than the current run": False}


def test_the_worst_hospital_decides_of_drops() -> None:
    before, after = results({"a": 0.8, "b": 0.5, "c": 0.1}), results({"a": 0.9, "b": 0.25, "d": 0.0})
    settings = {"not_worse": False, "max_hospital_drop": 0.25}
    assert passed(settings, after, before) == {"drop at a hospital": True}
    (gate,) = gates(PromotionSettings(**settings | {"max_hospital_drop": 0.2}), after, before, [])
    assert not gate.passed and gate.found == "b: 0.250, at most 0.2 is allowed"


@pytest.mark.parametrize(
    ("limit", "more", "name"),
    [
        ({"max_leakage": 0.1}, {"split": PUBLISHED}, "leakage"),
        ({"min_reliance": 0.25}, {"reliance": {NAME: BLANK}}, "reliance on images"),
        ({"max_calibration_error": 0.1}, {"calibration": {NAME: {"ece": 0.1}}}, "calibration error"),
        ({"max_epsilon": 8}, {"privacy": {"epsilon": 8.0}}, "epsilon"),
    ],
)
def test_a_limit_is_allowed_what_lies_beyond_is_not_and_nor_is_what_was_not_measured(
    limit: dict[str, float], more: dict[str, Any], name: str
) -> None:
    ((setting, bound),) = limit.items()
    stricter = {setting: bound + 0.01 if setting.startswith("min") else bound - 0.01}
    assert passed(limit, results(**more)) == {name: True}
    assert passed(stricter, results(**more)) == {name: False}
    if name != "leakage":
        assert passed(limit, results()) == {name: False}


def test_leakage_is_the_largest_share_and_none_where_the_split_was_made_disjoint() -> None:
    counts = {"same_image": 2, "near_duplicate_image": 30, "flipped_image": "fewer than 5", "same_patient": None}
    assert leakage({"disjoint": "none", "audited_test_cases": 60, "published_split_shares": counts}) == 0.5
    assert leakage({"disjoint": "patient", "audited_test_cases": 60, "published_split_shares": counts}) == 0
    assert leakage({"disjoint": "none"}) is None
