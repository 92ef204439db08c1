"""Which retrieved cases form the context of a question, in which order, and how their text is written."""

import json
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tasks.records import Case, Neighbour
from tasks.settings import ContextOrder
from tasks.store import derived_seed

Item = TypeVar("Item")


@dataclass(frozen=True)
class ContextCase:
    """A retrieved case as it appears in the prompt."""

    case: Case
    question: str
    answer: str
    similarity: float | None
    """None if the prompt does not state it."""


def choose(neighbours: Sequence[Neighbour], k: int, floor: float) -> list[Neighbour]:
    """The first `k` neighbours of one case by rank, without those whose similarity is below `floor`."""
    first = sorted((each for each in neighbours if each.rank < k), key=lambda each: each.rank)
    return [each for each in first if each.similarity >= floor]


def random_count(case_id: str, most: int) -> int:
    """A number of retrieved cases from 0 to `most`, which depends on the case's id alone."""
    return random.Random(derived_seed("count", case_id)).randint(0, most)


def ordered(nearest_first: Sequence[Item], order: ContextOrder, case_id: str) -> list[Item]:
    """The context of a case in the order of the prompt; a random order depends on the case's id alone."""
    placed = list(nearest_first)
    if order == "nearest last":
        placed.reverse()
    elif order == "random":
        random.Random(derived_seed("order", case_id)).shuffle(placed)
    return placed


def readable(text: str, longest: int | None) -> str:
    """Stored text without invisible characters, cut to `longest` characters; unchanged if `longest` is None.

    Control, format, private and unassigned characters (Unicode's categories C) become spaces. Runs of white space
    become one space. Both can hide instructions.
    """
    if longest is None:
        return text
    seen = "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in text)
    return " ".join(seen.split())[:longest]


def quoted(retrieved: ContextCase, number: int) -> str:
    """A retrieved case as one line of data; its texts are JSON strings, so they cannot break out of their quotes."""
    similarity = "" if retrieved.similarity is None else f", similarity {retrieved.similarity:.2f}"
    question, answer = (json.dumps(text, ensure_ascii=False) for text in (retrieved.question, retrieved.answer))
    return f"Case {number}{similarity}: question {question}, answer {answer}\n"
