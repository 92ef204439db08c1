"""What an attack did to a strategy: scores with and without it, their difference, and how often a backdoor worked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tasks.compare.trainings import over_trainings
from tasks.records import Kind
from tasks.score.statistics import Estimate, mean


@dataclass(frozen=True, slots=True)
class Answered:
    """The judgement of one answer of an honest hospital."""

    seed: int
    image: int
    """A number of the image's content."""
    kind: Kind
    correct: bool
    off_target: bool
    """Whether the right answer is another one than the backdoor's, so that this would be its doing."""
    told_target: bool
    """Whether the answer is the backdoor's."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The answers of one cell, over all seeds; cells with the same hospitals have the same cases, in one order."""

    answers: Sequence[Answered]
    marked: Sequence[Answered] = ()
    """Answers to the same questions about images with the backdoor's mark; empty where these were not asked."""
    turned_away: int = 0
    """Attackers' updates that the door turned away."""
    wronged: int = 0
    """Updates of honest hospitals that it turned away."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table of attacks."""

    strategy: str
    byzantine: int
    """Number of attackers, and what the strategy is told of them."""
    hospitals: int
    """Number of all hospitals."""
    refused: str = ""
    """Why it is not run: the strategy does not bear so many attackers; empty if it does."""
    tuned: str = ""
    """Settings that the strategy has chosen, as `federation.clip=0.5`; empty if it chose none."""


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One cell of a table of attacks."""

    row: Row
    attack: str
    """`none` for the same hospitals without an attack."""
    n: int
    """Answers of honest hospitals over all seeds; 0 where the cell was refused or failed."""
    figures: Mapping[str, Estimate]
    """By name in FIGURES, with intervals of 95 % over seeds and images; figures that there are none of are left out."""
    turned_away: int = 0
    wronged: int = 0
    failed: str = ""
    """Why nothing could be answered; empty if something was."""


FIGURES = {
    "score": "right answers, as a share",
    "closed": "right answers to closed questions",
    "open": "right answers to open questions",
    "fall": "the score without an attack less the one with it, of the same cases",
    "backdoor": "of the questions about marked images, with another right answer: those given the backdoor's",
}


def result(row: Row, attack: str, found: Outcomes | str, clean: Outcomes | str) -> AttackResult:
    """The figures of one cell.

    Args:
        row: its row.
        attack: its column.
        found: its answers, or why there are none.
        clean: those of the same row without an attack.
    """
    if isinstance(found, str):
        return AttackResult(row, attack, 0, {}, failed=found)
    answers, marked = found.answers, [each for each in found.marked if each.off_target]
    shares = {
        "score": _share(answers, [each.correct for each in answers]),
        "closed": _of_kind(answers, "closed"),
        "open": _of_kind(answers, "open"),
        "fall": None if isinstance(clean, str) else _fall(clean.answers, answers),
        "backdoor": _share(marked, [each.told_target for each in marked]),
    }
    figures = {name: share for name, share in shares.items() if share}
    return AttackResult(row, attack, len(answers), figures, found.turned_away, found.wronged)


def worst(results: Sequence[AttackResult]) -> AttackResult | None:
    """The attack under which a row scores least; None if none was run. One that left no answers is worse than any."""
    attacked = [each for each in results if each.attack != "none" and not each.row.refused]
    return min(attacked, key=lambda each: each.figures["score"].value if each.n else -1.0, default=None)


def flat(each: AttackResult) -> dict[str, Any]:
    """A cell as a row of a table of numbers: of each figure, the value and both ends of its interval."""
    row: dict[str, Any] = asdict(each.row) | {"attack": each.attack, "n": each.n}
    for name in FIGURES:
        found = each.figures.get(name)
        values = (found.value, found.low, found.high) if found else (None, None, None)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return row | {"turned_away": each.turned_away, "wronged": each.wronged, "failed": each.failed}


def _of_kind(rows: Sequence[Answered], kind: Kind) -> Estimate | None:
    chosen = [row for row in rows if row.kind == kind]
    return _share(chosen, [row.correct for row in chosen])


def _fall(clean: Sequence[Answered], attacked: Sequence[Answered]) -> Estimate | None:
    pairs = zip(clean, attacked, strict=True)
    return _share(clean, [float(before.correct) - float(after.correct) for before, after in pairs])


def _share(rows: Sequence[Answered], values: Sequence[float]) -> Estimate | None:
    if not rows:
        return None
    columns = np.column_stack([np.asarray(values, float), np.ones(len(rows))])
    return over_trainings(columns, [row.seed for row in rows], [row.image for row in rows], mean)
