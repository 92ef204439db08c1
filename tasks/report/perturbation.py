"""What a configuration's score depends on, measured by its answers to perturbed prompts."""

from collections.abc import Mapping, Sequence

from tasks.records.explanations import IGNORES
from tasks.records.perturbations import AS_IS, BLANK, MEANINGS
from tasks.records.run_document import Reliance, RelianceSummary
from tasks.records.shared_documents import ScoresDocument
from tasks.score.score import Tally, pool


def reliance_table(configuration: str, shared: Sequence[ScoresDocument]) -> dict[str, Reliance]:
    """By configuration: the summary over all hospitals, and that of each hospital under `hospitals`.

    `shared` is each hospital's `scores.json` of its answers to perturbed prompts. Hospitals without test cases, or that
    withhold all of them, are left out; the result is empty where none is left.
    """
    of = {
        each["hospital"]: {name: Tally.from_json(tally) for name, tally in each["tallies"].items()}
        for each in shared
        if any(tally["closed"]["n"] + tally["open"]["n"] for tally in each["tallies"].values())
    }
    if not of:
        return {}
    names = {name for tallies in of.values() for name in tallies}
    pooled = {name: pool(tallies[name] for tallies in of.values() if name in tallies) for name in names}
    hospitals = {hospital: summarise_reliance(hospital, tallies) for hospital, tallies in of.items()}
    return {configuration: {**summarise_reliance(configuration, pooled), "hospitals": hospitals}}


def summarise_reliance(configuration: str, tallies: Mapping[str, Tally]) -> RelianceSummary:
    """What a configuration's score depends on, from the tallies of each perturbation: of all hospitals, or of one.

    `score` is the share of all questions answered rightly: closed accuracy and open exact match together. `kept` is the
    share of the score on the original prompts that is left; None where that score is 0.
    """
    score = {name: _score(tally) for name, tally in tallies.items()}
    kept = {name: value / score[AS_IS] if score[AS_IS] else None for name, value in score.items()}
    blank = kept[BLANK]
    return {
        "n": tallies[AS_IS].closed + tallies[AS_IS].open,
        "alterations": {
            name: {
                "meaning": meaning,
                "closed": tallies[name].correct / tallies[name].closed if tallies[name].closed else None,
                "open": tallies[name].sums["exact_match"] / tallies[name].open if tallies[name].open else None,
                "score": score[name],
                "kept": kept[name],
            }
            for name, meaning in MEANINGS.items()
            if name in tallies
        },
        "ignores_images": None if blank is None else blank >= IGNORES,
        "sentence": _sentence(configuration, blank),
    }


def _score(tally: Tally) -> float:
    return (tally.correct + tally.sums["exact_match"]) / max(tally.closed + tally.open, 1)


def _sentence(configuration: str, kept: float | None) -> str:
    if kept is None:
        return f"{configuration} answers nothing rightly: whether it ignores images cannot be told."
    statement = f"{configuration} keeps {kept:.0%} of its score with a blank image"
    return f"{statement}: it ignores images." if kept >= IGNORES else f"{statement}: it does not ignore images."
