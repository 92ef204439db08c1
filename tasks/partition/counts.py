"""How many cases of each kind every hospital holds, with the same columns for all hospitals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.records import Case

KINDS = ("closed", "open")


def splits_of(cases: Sequence[Case]) -> dict[str, int]:
    """Number of cases in each split: always training and test, validation only if there are any."""
    found: Counter[str] = Counter(case.split for case in cases)
    return {split: found[split] for split in ("test", "train", "validation") if split != "validation" or found[split]}


def hospital_table(cases: Sequence[Case], owner: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each hospital with cases, by number: its images, and its cases of each split and kind.

    Args:
        cases: the cases that the study keeps.
        owner: the hospital of each image, named `hospital-N`.
    """
    counts: Counter[tuple[str, str, str]] = Counter((owner[each.image_id], each.split, each.kind) for each in cases)
    images = Counter(owner[image] for image in {case.image_id for case in cases})
    return [
        {
            "hospital": hospital,
            "images": images[hospital],
            **{f"{split}_{kind}": counts[hospital, split, kind] for split in splits_of(cases) for kind in KINDS},
        }
        for hospital in sorted(images, key=lambda name: int(name.rsplit("-", 1)[1]))
    ]
