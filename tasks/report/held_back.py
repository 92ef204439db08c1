"""What hospitals withheld from a study because it concerned too few cases: named, never counted."""

from collections.abc import Iterator

from tasks.records.run_document import WithheldOfRun
from tasks.records.shared_documents import SharedDocuments, WithheldScores


def held_back(least: int, shared: SharedDocuments) -> WithheldOfRun:
    """The `withheld` of `results.json`: what each hospital withholds, in words; hospitals that withhold nothing are
    absent.

    `least` is the fewest cases about which something is shared.
    """
    found: dict[str, list[str]] = {}
    for hospital, words in _words(shared):
        if words:
            found.setdefault(hospital, []).extend(words)
    return {"min_cell": least, "hospitals": found}


def _words(shared: SharedDocuments) -> Iterator[tuple[str, list[str]]]:
    """Pairs of a hospital and what it withholds, one document after the other."""
    for scores in shared.scores:
        yield scores["hospital"], _of_scores(scores["withheld"])
    for reliance in shared.reliance:
        yield reliance["hospital"], [f"{kind} with altered prompts" for kind in _questions(reliance["withheld"])]
    for failures in shared.failures:
        few = [f"failure mode: {mode}" for mode, counts in failures["modes"].items() if None in counts.values()]
        yield failures["hospital"], ["failure modes"] if failures["n"] is None else few
    for shares in shared.shares:
        yield shares["hospital"], ["where answers come from"] if shares["n"] is None else []
    for each in shared.abstention:
        yield each["hospital"], [f"{kind} questions answered and withheld" for kind in each["withheld"]]
    for seen in shared.seen:
        hidden = None in (*seen["images"].values(), *seen["cases"].values())
        yield seen["hospital"], ["test images that the base was trained on"] if hidden else []
    for gain in shared.gains:
        yield gain["hospital"], ["what its personal adapter brings"] if gain["withheld"] else []


def _of_scores(withheld: WithheldScores) -> list[str]:
    labels = ["labels of closed questions"] if withheld["labels"] else []
    groups = [f"{group}: {value}" for group, values in withheld["groups"].items() for value in values]
    by_kind = [f"{group} by kind: {value}" for group, values in withheld["by_kind"].items() for value in values]
    return [*_questions(withheld), *labels, *groups, *by_kind]


def _questions(withheld: WithheldScores) -> list[str]:
    return ["which are multiple choice" if name == "choice" else f"{name} questions" for name in withheld["questions"]]


def held_back_sentence(withheld: WithheldOfRun) -> str:
    """The sentence of a page about what is withheld."""
    rule = f"Nothing is told of fewer than {withheld['min_cell']} cases of a hospital"
    if not withheld["hospitals"]:
        return f"{rule}; nothing had to be withheld."
    return f"{rule}: the following was withheld. A value of a group is still in the scores of all questions."


def held_back_rows(withheld: WithheldOfRun) -> list[tuple[str, ...]]:
    """The `withheld` of `results.json` as text: headings, then a row for each hospital that withholds something."""
    return [
        ("", "withheld"),
        *((hospital, "; ".join(dict.fromkeys(words))) for hospital, words in withheld["hospitals"].items()),
    ]
