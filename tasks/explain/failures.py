"""Ways in which an answer fails that its score does not show, each by a rule that is written down here.

A rule says yes, no, or nothing where it does not apply; a mode's share is of the cases to which its rule applied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.cases.small_groups import is_small
from tasks.explain.maps import as_map, entropy
from tasks.explain.quality import pointing
from tasks.records import FailureModes
from tasks.records.explanations import (
    ALWAYS_YES,
    BORDER,
    BURNED_IN,
    COPIES_NEIGHBOUR,
    DIFFUSE,
    FEWEST,
    HALF,
    IGNORES_IMAGE,
    LEAST_FALL,
    MEANINGS,
    SPREAD,
    WRONG_REGION,
    YES,
)
from tasks.text.meaning import polarity, same


@dataclass(frozen=True)
class Evidence:
    """What is known of one answer."""

    case_id: str
    reference: str
    prediction: str
    correct: bool
    blank: str
    """The answer with the image blank."""
    shown: tuple[str, ...]
    """The answers of the retrieved cases in the prompt."""
    unaided: tuple[str, ...]
    """The answers without the retrieved cases, and with wrong answers in these; none where none is shown."""
    blank_fall: float
    """Fall of the answer's log-probability with the image blank, in nats; so are the two below."""
    border_fall: float
    text_fall: float | None
    """None where no text is seen in the image."""
    weights: NDArray[np.float64]
    """`(rows, columns)`: relevance of the query image's cells."""
    covered: NDArray[np.float64] | None
    """`(rows, columns)`: the share of each cell that the findings in question cover; None where none is known."""


def judge_all(answers: Sequence[Evidence]) -> list[dict[str, bool | None]]:
    """By answer, each mode: whether it holds, None where its rule does not apply.

    The answers are one hospital's by one configuration: whether all are yes is a matter of all of them.
    """
    asked = [each for each in answers if polarity(each.reference)]
    said, due = ([polarity(getattr(each, name)) == "yes" for each in asked] for name in ("prediction", "reference"))
    always = bool(np.mean(said) >= YES > np.mean(due)) if len(asked) >= FEWEST else None
    return [_judge(each, always) for each in answers]


def _judge(one: Evidence, always: bool | None) -> dict[str, bool | None]:
    matters = one.blank_fall >= LEAST_FALL
    said_yes = polarity(one.prediction) == "yes" and not one.correct
    return {
        IGNORES_IMAGE: same(one.blank, one.prediction) and not matters,
        COPIES_NEIGHBOUR: _copies(one) if one.shown else None,
        BORDER: one.border_fall >= HALF * one.blank_fall if matters else None,
        BURNED_IN: one.text_fall >= HALF * one.blank_fall if matters and one.text_fall is not None else None,
        DIFFUSE: bool(one.weights.size ** (entropy(one.weights) - 1) >= SPREAD) if one.weights.size > 1 else None,
        WRONG_REGION: None if one.covered is None or not one.correct else _misses(one.weights, one.covered),
        ALWAYS_YES: None if always is None or not polarity(one.reference) else always and said_yes,
    }


def _copies(one: Evidence) -> bool:
    copied = any(same(answer, one.prediction) for answer in one.shown)
    return copied and not all(same(answer, one.prediction) for answer in one.unaided)


def _misses(weights: NDArray[np.float64], covered: NDArray[np.float64]) -> bool:
    """Whether the heaviest cell is off the finding, and its cells weigh less than as many of an even map."""
    touched = covered > 0
    return pointing(weights, covered) < HALF and bool(as_map(weights)[touched].sum() < touched.mean())


def records(answers: Sequence[Evidence], judged: Sequence[Mapping[str, bool | None]]) -> list[FailureModes]:
    """The same as a hospital keeps it."""
    return [
        FailureModes(
            answer.case_id,
            tuple(mode for mode, found in modes.items() if found),
            tuple(mode for mode, found in modes.items() if found is None),
        )
        for answer, modes in zip(answers, judged, strict=True)
    ]


def count_modes(rows: Sequence[FailureModes], least: int) -> dict[str, Any]:
    """Of some answers: their number `n`, and by mode its `cases` `of` those to which its rule applied.

    A count of fewer than `least` cases is None, and no mode is told of where all answers are so few.
    """
    if is_small(len(rows), least):
        return {"n": None, "modes": {}}
    modes = {}
    for mode in MEANINGS:
        cases = sum(mode in row.modes for row in rows)
        of = sum(mode not in row.inapplicable for row in rows)
        few = is_small(of, least)
        modes[mode] = {"cases": None if few or is_small(cases, least) else cases, "of": None if few else of}
    return {"n": len(rows), "modes": modes}
