"""Sentences about a run's data: which split its scores are of, and which published rows are left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.text.wording import counted

DISJOINT = {
    "image": "no test image is a training image",
    "near_duplicate": "no test image is a training image or a copy of one",
    "patient": "no test image is a training image, a copy of one, or of a patient in training",
}
"""What `partition.disjoint` means for the scores."""
ORIGINS = {
    "given": "as the data gives it",
    "made": "made from the data by whole images and patients",
    "drawn": "drawn with the images",
}
"""Origin of a split that was not changed."""
SHARED = {
    "same_image": "an image of training",
    "near_duplicate_image": "a near-copy of one",
    "flipped_image": "a flipped copy of one",
    "same_patient": "a patient of training",
}
"""The audit's counts of shared images and patients, by the name of the count."""


def split_sentence(splits: Sequence[Mapping[str, Any]]) -> str:
    """A sentence that says which split the scores are of, and what the audit found in it.

    Args:
        splits: `split` of `results.json`, of one run or of runs that differ in their seed only.
    """
    if splits[0]["disjoint"] != "none":
        return DISJOINT[splits[0]["disjoint"]]
    origins = list(dict.fromkeys(origin for each in splits for origin in each.get("origins", ["given"])))
    described = " or ".join(ORIGINS[origin] for origin in origins)
    counts = {name: [each.get("published_split_shares", {}).get(name, 0) for each in splits] for name in SHARED}
    found = [f"{SHARED[name]} {_sum(count)}" for name, count in counts.items() if any(count)]
    tests = sum(audited_tests(each) for each in splits)
    patients = "" if None in counts["same_patient"] else " or its patient"
    unknown = "" if patients else "; patients are not stated"
    if not found:
        return f"{described}; the audit found nothing of a test image{patients} in training{unknown}"
    return f"{described}; of {counted(tests, 'test cases')} the audit found these to share: {', '.join(found)}{unknown}"


def _sum(counts: Sequence[int | str | None]) -> int | str:
    """The sum of counts of several runs. A text stands for a withheld count; None means that the dataset does not state
    it."""
    return next((count for count in counts if isinstance(count, str)), sum(n for n in counts if isinstance(n, int)))


def audited_tests(split: Mapping[str, Any]) -> int:
    """How many test cases the audit saw, before any was moved or left out; older runs have only the count after."""
    return int(split.get("audited_test_cases", split.get("test", 0)))


def left_out(notes: Mapping[str, int], reasons: Sequence[str]) -> dict[str, int]:
    """How many published rows are left out of a dataset's cases, by reason.

    Args:
        notes: of the reader; those about such rows contain `left out`.
        reasons: of each unusable row, as `expected ..., found ...`; the part that was found is not repeated.
    """
    counts = {note.replace(" left out", ""): count for note, count in notes.items() if " left out" in note}
    unusable = Counter(reason.partition(", found ")[0] for reason in reasons)
    return counts | {f"unusable rows ({expected})": count for expected, count in unusable.most_common()}


def left_out_sentence(dataset: Mapping[str, Any]) -> str:
    """A sentence that says which rows are left out of `dataset` of `results.json`: how many, of how many, and why."""
    counts = dataset.get("left_out")
    if counts is None:  # a run of an earlier version
        rejected = dataset.get("rejected", 0)
        return f"{counted(rejected, 'rows')} could not be used" if rejected else "no row was unusable"
    if not counts:
        return "no row was left out"
    total = sum(counts.values())
    every = total + dataset["cases"] + dataset["captions"]
    reasons = ", ".join(_count_of(what, count) for what, count in counts.items())
    return f"left out {total} of {counted(every, 'rows')}: {reasons}"


def _count_of(what: str, count: int) -> str:
    """A count with its noun; with several datasets, `what` begins with the name of one."""
    name, colon, rest = what.partition(": ")
    return f"{counted(count, rest)} of {name}" if colon and " " not in name else counted(count, what)
