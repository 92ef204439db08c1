"""Which test cases two finished runs answer differently, case by case."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.judged import case_number, images_of_cases, read_answers
from tasks.errors import StudyError
from tasks.records import Case, Prediction, read_table
from tasks.score.outcomes import judge
from tasks.store import here
from tasks.store.runs import open_run
from tasks.text.normalise import normalise

Change = Literal["became wrong", "became right", "otherwise"]
CHANGES: tuple[Change, ...] = ("became wrong", "became right", "otherwise")
"""In the order in which they are shown: losses first."""


@dataclass(frozen=True)
class ChangedAnswer:
    """A test case whose answer is another one in the second run. It holds a hospital's own words."""

    hospital: str
    case: str
    question: str
    reference: str
    one: str
    """The first run's answer."""
    other: str
    """The second run's."""
    change: Change


@dataclass(frozen=True)
class ChangedAnswers:
    """What became of the test cases that both runs answered."""

    common: int
    changed: list[ChangedAnswer]

    @property
    def counts(self) -> dict[str, int]:
        """How many answers changed in each way, and how many are the same."""
        found = Counter(each.change for each in self.changed)
        return {change: found[change] for change in CHANGES} | {"same": self.common - len(self.changed)}

    @property
    def sentence(self) -> str:
        """The counts in words."""
        right, wrong, otherwise, same = (
            self.counts[name] for name in ("became right", "became wrong", "otherwise", "same")
        )
        return (
            f"Of {self.common} answers to the same cases, {right} became right and {wrong} wrong, {otherwise} changed "
            f"otherwise, and {same} are the same."
        )


def changed_answers(one: Path, other: Path) -> ChangedAnswers | None:
    """What the second run answers otherwise than the first, losses first; None where their answers are not here.

    Runs are given by their folders.

    Answers stay with the hospitals: in a federation of machines, a coordinator has none.
    """
    try:
        before, after = _answers(one), _answers(other)
    except (StudyError, OSError):
        return None
    common = before.keys() & after.keys()
    if not common:
        return None
    changed = sorted(_changed(common, before, after), key=lambda each: (CHANGES.index(each.change), each.case))
    return ChangedAnswers(len(common), changed)


def _answers(run: Path) -> dict[int, Prediction]:
    """What the trained configuration answered, by the case's number."""
    study, places = open_run(run)
    found = {}
    for folders in places["hospitals"].values():
        images = images_of_cases(folders["cases"], read_table(here(folders["cases"]) / "cases.parquet", Case))
        for row in read_answers(folders["predictions"]):
            if row.configuration == study.configuration:
                found[case_number(row, images[row.case_id])] = row
    return found


def _changed(
    cases: Iterable[int], before: Mapping[int, Prediction], after: Mapping[int, Prediction]
) -> Iterator[ChangedAnswer]:
    for case in cases:
        one, other = before[case], after[case]
        if normalise(one.prediction) == normalise(other.prediction):
            continue
        was, now = judge(one).correct, judge(other).correct
        change: Change = "otherwise" if was == now else "became right" if now else "became wrong"
        words = other.question, other.reference, one.prediction, other.prediction
        yield ChangedAnswer(other.hospital, other.case_id, *words, change)


def rows_of(changed: Sequence[ChangedAnswer]) -> list[dict[str, str]]:
    """Rows of a table."""
    return [
        {"change": each.change, "hospital": each.hospital, "case": each.case, "question": each.question}
        | {"expected": each.reference, "A": each.one, "B": each.other}
        for each in changed
    ]
