"""The gates of a promotion: what a run's results have to show, each with what was found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.records.comparison import PairedTest
from tasks.records.perturbations import BLANK
from tasks.records.run_document import RunDocument
from tasks.settings.promotion import PromotionSettings

SHARED = ("same_image", "near_duplicate_image", "flipped_image", "same_patient")
"""The audit's counts of test cases that share something with training."""


@dataclass(frozen=True)
class Gate:
    """One gate, and whether a run passes it."""

    name: str
    passed: bool
    found: str
    """What was found, and what was allowed."""


def gates(
    settings: PromotionSettings,
    results: RunDocument,
    current: RunDocument | None,
    tests: Sequence[PairedTest] | str,
) -> list[Gate]:
    """All gates that the settings close.

    A gate whose figure is not in the results is not passed: it was asked for, and cannot be shown.

    Args:
        settings: the limits.
        results: of the run.
        current: of the run that is served; None if there is none, so that no gate compares with it.
        tests: paired tests of the run less the current one; why there are none, if they cannot be made.
    """
    return [*_alone(settings, results), *(_beside(settings, results, current, tests) if current else ())]


def _alone(settings: PromotionSettings, results: RunDocument) -> Iterator[Gate]:
    name = next(iter(results["configurations"]))
    if settings.max_leakage is not None:
        yield _at_most("leakage", leakage(results["split"]), settings.max_leakage)
    if settings.min_reliance is not None:
        yield _at_least("reliance on images", reliance(results, name), settings.min_reliance)
    if settings.max_calibration_error is not None:
        error = results["calibration"][name]["ece"] if name in results["calibration"] else None
        yield _at_most("calibration error", error, settings.max_calibration_error)
    if settings.max_epsilon is not None:
        privacy = results["privacy"]
        yield _at_most("epsilon", privacy["epsilon"] if privacy else None, settings.max_epsilon)


def _beside(
    settings: PromotionSettings, results: RunDocument, current: RunDocument, tests: Sequence[PairedTest] | str
) -> Iterator[Gate]:
    if settings.not_worse:
        yield _not_worse(tests)
    if settings.max_hospital_drop is not None:
        drops = {name: before - now for name, before, now in _of_hospitals(current, results)}
        worst = max(drops, key=lambda name: drops[name], default=None)
        gate = _at_most("drop at a hospital", drops[worst] if worst else None, settings.max_hospital_drop)
        yield Gate(gate.name, gate.passed, f"{worst}: {gate.found}" if worst else gate.found)


def _not_worse(tests: Sequence[PairedTest] | str) -> Gate:
    name = "not worse than the current run"
    if isinstance(tests, str):
        return Gate(name, False, f"not tested: {tests}")
    test = next((each for each in tests if each["measure"] == "correct"), None)
    if test is None or test["interval"] is None:
        return Gate(name, False, "not tested: too few images for an interval")
    low, high = test["interval"]
    found = (
        f"{test['difference']:+.3f} [{low:+.3f}, {high:+.3f}] of right answers, an interval wholly below 0 is refused"
    )
    return Gate(name, high >= 0, found)


def leakage(split: Mapping[str, Any]) -> float | None:
    """The largest share of test cases that share an image or a patient with training; None if it was not audited.

    A split that was made disjoint has none; a count that is withheld for being small counts as none.
    """
    if split.get("disjoint", "none") != "none":
        return 0.0
    tests, counts = split.get("audited_test_cases"), split.get("published_split_shares", {})
    if not tests or not counts:
        return None
    return max((n for n in (counts.get(name) for name in SHARED) if isinstance(n, int)), default=0) / tests


def reliance(results: RunDocument, name: str) -> float | None:
    """The share of its score that a configuration loses with a blank image; None if that was not asked."""
    found = results["reliance"].get(name)
    if found is None or BLANK not in found["alterations"]:
        return None
    kept = found["alterations"][BLANK]["kept"]
    return None if kept is None else 1 - kept


def _of_hospitals(before: RunDocument, after: RunDocument) -> Iterator[tuple[str, float, float]]:
    """By hospital that both runs have, the share of right answers in the one and in the other."""
    old, new = (
        {each["value"]: each["score"] for each in run["scores"] if _counts(each, run)} for run in (before, after)
    )
    yield from ((str(name), old[name], new[name]) for name in old.keys() & new.keys())


def _counts(entry: Mapping[str, Any], run: RunDocument) -> bool:
    trained = next(iter(run["configurations"]))
    return (entry["configuration"], entry["group"], entry["measure"]) == (trained, "hospital", "correct")


def _at_most(name: str, found: float | None, limit: float) -> Gate:
    if found is None:
        return Gate(name, False, f"not measured in this run, at most {limit:g} is allowed")
    return Gate(name, found <= limit, f"{found:.3f}, at most {limit:g} is allowed")


def _at_least(name: str, found: float | None, limit: float) -> Gate:
    if found is None:
        return Gate(name, False, f"not measured in this run, at least {limit:g} is asked")
    return Gate(name, found >= limit, f"{found:.3f}, at least {limit:g} is asked")
