"""One conversation for training and evaluation alike: retrieved cases as earlier turns, then the question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.options import lettered
from tasks.records import Case, Neighbour


@dataclass(frozen=True)
class Prompt:
    """What the model is shown for one case."""

    messages: tuple[dict[str, Any], ...]
    """In the chat format of `transformers`, ending with the user's question."""
    image_ids: tuple[str, ...]
    """The images in the order of their placeholders; the question's own is the last. None in a blind prompt."""
    shown_ids: tuple[str, ...]
    """The retrieved cases, nearest first."""
    answer: str


def build_prompt(case: Case, shown: Sequence[Case]) -> Prompt:
    """The conversation about one case.

    Args:
        case: the case to be answered.
        shown: retrieved cases, nearest first. The nearest stands next to the question, where models attend most.
    """
    turns: list[dict[str, Any]] = []
    for earlier in reversed(shown):
        turns.append(_question(earlier))
        turns.append({"role": "assistant", "content": [{"type": "text", "text": earlier.answer}]})
    turns.append(_question(case))
    images = (*(earlier.image_id for earlier in reversed(shown)), case.image_id)
    return Prompt(tuple(turns), images, tuple(earlier.id for earlier in shown), case.answer)


def build_blind_prompt(case: Case) -> Prompt:
    """The question alone, without the image: what is answered to it owes nothing to the image.

    It shows no retrieved case either, since these were chosen by the image.
    """
    return Prompt((_question(case, sees=False),), (), (), case.answer)


def build_prompts(
    asked: Sequence[Case], cases: Sequence[Case], neighbours: Sequence[Neighbour], k: int
) -> list[Prompt]:
    """The conversations about some cases, each shown its `k` nearest neighbours, or as many as there are.

    Args:
        asked: cases to be answered.
        cases: all cases of the hospital, where neighbours are looked up.
        neighbours: of the cases asked, in any order.
        k: most neighbours to show.
    """
    by_id = {case.id: case for case in cases}
    nearest: dict[str, list[Neighbour]] = {}
    for neighbour in neighbours:
        if neighbour.rank < k:
            nearest.setdefault(neighbour.case_id, []).append(neighbour)
    return [
        build_prompt(case, [by_id[n.neighbour_id] for n in sorted(nearest.get(case.id, []), key=lambda n: n.rank)])
        for case in asked
    ]


def _question(case: Case, sees: bool = True) -> dict[str, Any]:
    text = lettered(case.question, case.options) if case.options else case.question
    return {"role": "user", "content": [{"type": "image"}] * sees + [{"type": "text", "text": text}]}
