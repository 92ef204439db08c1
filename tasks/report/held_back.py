"""What hospitals withheld of a study because it would have told of too few cases: named, never counted."""

from collections.abc import Mapping, Sequence
from typing import Any

Told = Sequence[Mapping[str, Any]]


def held_back(
    least: int, scores: Told, reliance: Told = (), failures: Told = (), shares: Told = (), abstention: Told = ()
) -> dict[str, Any]:
    """The `withheld` of `results.json`: `min_cell`, and by hospital what it withholds, in words.

    Args:
        least: fewest cases of which something is told.
        scores: each hospital's `scores.json`.
        reliance: the same of its answers to altered prompts.
        failures: each hospital's `failures.json`.
        shares: each hospital's `shares.json`.
        abstention: each hospital's `abstention.json`.
    """
    found: dict[str, list[str]] = {}

    def add(each: Mapping[str, Any], words: Sequence[str]) -> None:
        if words:
            found.setdefault(each["hospital"], []).extend(words)

    for each in scores:
        add(each, _of_scores(each["withheld"]))
    for each in reliance:
        add(each, [f"{kind} with altered prompts" for kind in _questions(each["withheld"])])
    for each in failures:
        few = [mode for mode, told in each["modes"].items() if None in told.values()]
        add(each, ["failure modes"] if each["n"] is None else [f"failure mode: {mode}" for mode in few])
    for each in shares:
        add(each, ["where answers come from"] if each["n"] is None else [])
    for each in abstention:
        add(each, [f"{kind} questions answered and withheld" for kind in each["withheld"]])
    return {"min_cell": least, "hospitals": found}


def _of_scores(withheld: Mapping[str, Any]) -> list[str]:
    labels = ["labels of closed questions"] if withheld["labels"] else []
    groups = [f"{group}: {value}" for group, values in withheld["groups"].items() for value in values]
    by_kind = [f"{group} by kind: {value}" for group, values in withheld["by_kind"].items() for value in values]
    return [*_questions(withheld), *labels, *groups, *by_kind]


def _questions(withheld: Mapping[str, Any]) -> list[str]:
    return ["which are multiple choice" if name == "choice" else f"{name} questions" for name in withheld["questions"]]


def held_back_sentence(withheld: Mapping[str, Any]) -> str:
    """What a page says of it."""
    rule = f"Nothing is told of fewer than {withheld['min_cell']} cases of a hospital"
    if not withheld["hospitals"]:
        return f"{rule}; nothing had to be withheld."
    return f"{rule}: the following was withheld. A value of a group is still in the scores of all questions."


def held_back_rows(withheld: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The `withheld` of `results.json` as text: headings, then a row a hospital that withholds anything."""
    return [
        ("", "withheld"),
        *((hospital, "; ".join(dict.fromkeys(words))) for hospital, words in withheld["hospitals"].items()),
    ]
