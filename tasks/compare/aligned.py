"""Configurations that answered the same cases: their answers in one order, and what is told of them together."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.errors import StudyError
from tasks.records import Outcome
from tasks.score.measures import GROUPS, Answers


def align(outcomes: Mapping[str, Mapping[int, Sequence[Outcome]]], reference: str) -> dict[str, Answers]:
    """Every configuration's answers, in the order of the reference's.

    Args:
        outcomes: by configuration and seed; a case has the same number in every configuration, and an image at every
            seed.
        reference: the configuration whose hospitals hold the cases.

    Raises StudyError where a configuration did not answer exactly the reference's cases.
    """
    places = [(seed, row) for seed, rows in outcomes[reference].items() for row in sorted(rows, key=_case)]
    hospitals = tuple(row.hospital for _, row in places)
    seeds = tuple(seed for seed, _ in places)
    images = tuple(row.image for _, row in places)
    aligned = {}
    for name, by_seed in outcomes.items():
        found = [(seed, row) for seed in outcomes[reference] for row in sorted(by_seed.get(seed, ()), key=_case)]
        if [(seed, row.case) for seed, row in found] != [(seed, row.case) for seed, row in places]:
            raise StudyError(
                f"Expected {name} to answer the {len(places)} test cases of {reference}, found {len(found)} answers "
                "to other ones: compare configurations that share dataset, split and partition.kind."
            )
        aligned[name] = Answers(tuple(row for _, row in found), seeds, images, hospitals)
    return aligned


def _case(row: Outcome) -> int:
    return row.case


def withheld_values(answers: Answers, least: int) -> dict[str, list[str]]:
    """By group, the values of which `score_entries` tells nothing."""
    found = {}
    for group in GROUPS:
        values = {value for place in range(len(answers.rows)) if (value := answers.of(group, place))}
        if rest := sorted(values - answers.tellable(group, least)[0]):
            found[group] = rest
    return found


def worst_hospitals(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each configuration, the hospital with the fewest right answers, and how far it lies below all together.

    Hospitals that are not told of are left out.
    """
    found = []
    for name in dict.fromkeys(entry["configuration"] for entry in entries):
        own = [entry for entry in entries if entry["configuration"] == name and entry["measure"] == "correct"]
        everywhere = next(entry for entry in own if entry["group"] == "all")
        hospitals = [entry for entry in own if entry["group"] == "hospital"]
        if not hospitals:
            continue
        worst = min(hospitals, key=lambda entry: (entry["score"], entry["value"]))
        below = everywhere["score"] - worst["score"]
        kept = {field: worst[field] for field in ("n", "images", "score", "interval", "interval_holds")}
        found.append({"configuration": name, "hospital": worst["value"], **kept, "below_all": below})
    return found
