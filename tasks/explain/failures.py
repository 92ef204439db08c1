"""Failure modes of an answer that its score does not show, each decided by a rule in this file.

A rule says yes, no, or None if it does not apply. A mode's share is taken over the cases to which its rule applies.
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
class Examination:
    """What the rules of the failure modes need to know about one answer."""

    case_id: str
    reference: str
    prediction: str
    correct: bool
    blank: str
    """The model's answer with a blank image."""
    retrieved_answers: tuple[str, ...]
    """The answers of the retrieved cases in the prompt."""
    unaided: tuple[str, ...]
    """The model's answers without the retrieved cases, and with wrong answers in them; empty if none is retrieved."""
    blank_fall: float
    """Fall of the answer's log-probability with a blank image, in nats."""
    border_fall: float
    """The same with the image's border covered."""
    text_fall: float | None
    """The same with the text in the image covered; None if no text is found."""
    weights: NDArray[np.float64]
    """`(rows, columns)`: relevance of the query image's cells."""
    covered: NDArray[np.float64] | None
    """`(rows, columns)`: the share of each cell that the relevant findings cover; None if no mask is known."""


def judge_all(examinations: Sequence[Examination]) -> list[dict[str, bool | None]]:
    """For each answer and each mode: whether the mode holds, or None if its rule does not apply.

    Pass all of one hospital's answers by one configuration: `ALWAYS_YES` is judged over all of them.
    """
    yes_no = [each for each in examinations if polarity(each.reference)]
    said, due = ([polarity(getattr(each, name)) == "yes" for each in yes_no] for name in ("prediction", "reference"))
    always = bool(np.mean(said) >= YES > np.mean(due)) if len(yes_no) >= FEWEST else None
    return [_judge(each, always) for each in examinations]


def _judge(one: Examination, always: bool | None) -> dict[str, bool | None]:
    matters = one.blank_fall >= LEAST_FALL
    said_yes = polarity(one.prediction) == "yes" and not one.correct
    return {
        IGNORES_IMAGE: same(one.blank, one.prediction) and not matters,
        COPIES_NEIGHBOUR: _copies(one) if one.retrieved_answers else None,
        BORDER: one.border_fall >= HALF * one.blank_fall if matters else None,
        BURNED_IN: one.text_fall >= HALF * one.blank_fall if matters and one.text_fall is not None else None,
        DIFFUSE: bool(one.weights.size ** (entropy(one.weights) - 1) >= SPREAD) if one.weights.size > 1 else None,
        WRONG_REGION: None if one.covered is None or not one.correct else _misses(one.weights, one.covered),
        ALWAYS_YES: None if always is None or not polarity(one.reference) else always and said_yes,
    }


def _copies(one: Examination) -> bool:
    copied = any(same(answer, one.prediction) for answer in one.retrieved_answers)
    return copied and not all(same(answer, one.prediction) for answer in one.unaided)


def _misses(weights: NDArray[np.float64], covered: NDArray[np.float64]) -> bool:
    """Whether the map peaks off the finding, and gives the finding's cells less weight than an even map would."""
    touched = covered > 0
    return pointing(weights, covered) < HALF and bool(as_map(weights)[touched].sum() < touched.mean())


def records(examinations: Sequence[Examination], judged: Sequence[Mapping[str, bool | None]]) -> list[FailureModes]:
    """The judgements as records that a hospital stores."""
    return [
        FailureModes(
            examination.case_id,
            tuple(mode for mode, found in modes.items() if found),
            tuple(mode for mode, found in modes.items() if found is None),
        )
        for examination, modes in zip(examinations, judged, strict=True)
    ]


def count_modes(rows: Sequence[FailureModes], least: int) -> dict[str, Any]:
    """Count answers (`n`), and by mode the `cases` that show it `of` those to which its rule applies.

    A count from 1 to `least - 1` is withheld as None. If `n` is withheld, `modes` is empty.
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
