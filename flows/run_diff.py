"""Two finished runs side by side: settings, scores, and whether the difference could be chance."""

from dataclasses import dataclass
from typing import Any

from flows.judged import outcomes
from flows.run_list import FinishedRun
from tasks.compare.aligned import align
from tasks.compare.tests import paired_tests
from tasks.errors import StudyError
from tasks.records.comparison import PairedTest

NOT_SET = "(not set)"
"""Stands for a setting that a run of another version does not have."""


@dataclass(frozen=True)
class Difference:
    """What differs between two runs."""

    settings: dict[str, tuple[Any, Any]]
    """By dotted name, the values in the one and in the other."""
    tests: list[PairedTest]
    """Paired tests of the metrics, the second less the first; empty if they did not answer the same cases."""
    untested: str
    """Why there are no tests; empty if there are."""


def difference(one: FinishedRun, other: FinishedRun) -> Difference:
    """Compare two runs; tests are of the same cases answered twice, and so need the hospitals' files."""
    names = sorted(one.settings.keys() | other.settings.keys())
    pairs = {name: (one.settings.get(name, NOT_SET), other.settings.get(name, NOT_SET)) for name in names}
    settings = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    try:
        answers = align({"B": {0: outcomes(other.folder)["trained"]}, "A": {0: outcomes(one.folder)["trained"]}}, "B")
    except (StudyError, OSError) as error:
        reason = str(error) if isinstance(error, StudyError) else "their answers are not in these artifacts"
        return Difference(settings, [], reason)
    return Difference(settings, paired_tests(answers, ["B", "A"], "B"), "")
