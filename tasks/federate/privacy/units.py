"""Whose presence noise hides: training cases one by one, or all cases of a patient together."""

from collections.abc import Sequence

from tasks.cases.groups import image_groups
from tasks.errors import StudyError
from tasks.records import Case
from tasks.settings.privacy import Unit
from tasks.text.wording import counted


def units_of(cases: Sequence[Case], unit: Unit) -> list[list[Case]]:
    """The cases by unit, `example` or `patient`, in an order that follows from the cases alone.

    Raises StudyError if patients are asked for and a case does not state its own.
    """
    if unit == "example":
        return [[case] for case in cases]
    if unknown := sum(case.group is None for case in cases):
        raise StudyError(
            f"Expected a patient with every training case for federation.privacy.unit=patient, found "
            f"{counted(unknown, 'cases')} without: give the dataset's patients, or protect cases with unit=example."
        )
    groups = image_groups(cases)
    units: dict[str, list[Case]] = {}
    for case in cases:
        units.setdefault(groups[case.image_id], []).append(case)
    return list(units.values())
