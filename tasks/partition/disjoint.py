"""Splits that share no image, no copy of one, or no patient."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tasks.cases.groups import image_groups
from tasks.errors import StudyError
from tasks.records import Case, ImagePair, Split
from tasks.store import derived_seed

IDENTICAL = ("identical_bytes", "identical_pixels")


def disjoint(cases: Sequence[Case], pairs: Iterable[ImagePair], mode: str, seed: int) -> list[Case]:
    """The same cases in the same order, their splits and groups such that no group is parted.

    Groups are what must stay together: `image` joins the cases of one image, and of identical files;
    `near_duplicate` joins copies too, flipped ones included; `patient` joins images of one published patient or case
    as well. A group without a test case stays out of the test split. The others are taken for it while they fit into
    the published number of test cases: first those that are nothing but test, then by a digest of seed and name. What
    does not fit becomes training, and so does a validation case whose group is also trained on.

    Args:
        cases: of all splits.
        pairs: of images of which one is a copy of the other.
        mode: `none`, `image`, `near_duplicate` or `patient`; `none` returns the cases as they are.
        seed: of the choice.

    Raises StudyError where no group could be tested, or none trained on, and for `patient` where no patient is stated.
    """
    if mode == "none":
        return list(cases)
    if mode == "patient" and all(case.group is None for case in cases):
        raise StudyError(
            "Expected cases that state their patient for partition.disjoint=patient, found none: state them, "
            "or set partition.disjoint=near_duplicate."
        )
    joined = [(p.image_a, p.image_b) for p in pairs if mode != "image" or p.relation in IDENTICAL]
    bare = cases if mode == "patient" else [replace(case, group=None) for case in cases]
    groups = image_groups(bare, joined)
    splits: dict[str, Counter[Split]] = defaultdict(Counter)
    for case in cases:
        splits[groups[case.image_id]][case.split] += 1
    tested = _tested(splits, seed)
    placed: dict[str, dict[Split, Split]] = {
        group: _placed(counts, group in tested) for group, counts in splits.items()
    }
    # A hospital keeps a published patient whole whatever the split was made by.
    kept = image_groups(cases, joined)
    moved = [
        replace(case, split=placed[groups[case.image_id]][case.split], group=kept[case.image_id]) for case in cases
    ]
    if not {"train", "test"} <= {case.split for case in moved}:
        raise StudyError(
            f"Expected training and test cases after partition.disjoint={mode}, found {len(splits)} groups that "
            "leave one of them empty: loosen partition.disjoint, or add images."
        )
    return moved


def _tested(splits: dict[str, Counter[Split]], seed: int) -> set[str]:
    """The groups that make the test split."""
    room = sum(counts["test"] for counts in splits.values())
    wanted = [group for group, counts in splits.items() if counts["test"]]
    wanted.sort(
        key=lambda group: (splits[group]["test"] < splits[group].total(), derived_seed("disjoint", seed, group))
    )
    chosen = set()
    for group in wanted:
        if splits[group].total() <= room:
            chosen.add(group)
            room -= splits[group].total()
    if not chosen and len(splits) > 1 and wanted:
        chosen = {min(wanted, key=lambda group: (splits[group].total(), group))}
    return chosen


def _placed(counts: Counter[Split], tested: bool) -> dict[Split, Split]:
    """The new split of each old one, within a group."""
    if tested:
        return dict.fromkeys(counts, "test")
    return dict.fromkeys(counts, "validation" if set(counts) == {"validation"} else "train")
