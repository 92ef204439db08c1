"""The share of each configuration's score that is left with perturbed prompts, over all seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.records.comparison import RelianceRow
from tasks.records.explanations import IGNORES
from tasks.records.perturbations import AS_IS, BLANK, MEANINGS


def reliance_row(split: str, configuration: str, summaries: Sequence[Mapping[str, Any]]) -> RelianceRow:
    """Average the summaries of several seeds; only the perturbations that all seeds have are kept.

    Args:
        split: name of the split.
        configuration: name of the configuration.
        summaries: entries of the seeds' `reliance` in `results.json`; at least one.

    `kept` is the share of the mean score that is left with each perturbation. `n` is the number of questions of all
    seeds.
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
