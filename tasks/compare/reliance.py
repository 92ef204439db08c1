"""What each configuration keeps of its score with altered prompts, the seeds together."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.records.alterations import AS_IS, BLANK, MEANINGS
from tasks.records.comparison import RelianceRow
from tasks.records.explanations import IGNORES


def reliance_row(split: str, configuration: str, summaries: Sequence[Mapping[str, Any]]) -> RelianceRow:
    """The mean of several seeds' summaries: `kept` by alteration, of the mean score; alterations that all have.

    Args:
        split: where they are from.
        configuration: whose they are.
        summaries: entries of the seeds' `reliance` in `results.json`; at least one.

    `n` is the number of questions of all seeds.
    """
    names = [name for name in MEANINGS if all(name in each["alterations"] for each in summaries)]
    n = sum(each["n"] for each in summaries)
    score = {name: sum(each["n"] * each["alterations"][name]["score"] for each in summaries) / n for name in names}
    kept = {name: score[name] / score[AS_IS] if score[AS_IS] else None for name in names if name != AS_IS}
    blank = kept[BLANK]
    return {
        "split": split,
        "configuration": configuration,
        "n": n,
        "score": score[AS_IS],
        "kept": kept,
        "ignores_images": None if blank is None else blank >= IGNORES,
    }
