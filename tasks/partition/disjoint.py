"""Disjoint splits: no two splits share an image, a copy of an image, or a patient."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tasks.cases.groups import image_groups
from tasks.errors import StudyError
from tasks.records import Case, ImagePair, Split
from tasks.store import derived_seed

IDENTICAL = ("identical_bytes", "identical_pixels")


def disjoint(cases: Sequence[Case], pairs: Iterable[ImagePair], mode: str, seed: int) -> list[Case]:
    """The same cases in the same order, with new splits, so that cases that belong together are in one split.

    With `image`, the cases of one image and of its identical copies form a group; with `near_duplicate`, those of all
    copies, also flipped ones; with `patient`, also those of one published patient or case. Groups with a test case are
    taken for the test split while they fit into the published number of test cases: first those with test cases only,
    then in the order of a digest of seed and name. If none fits, the smallest is taken. All other groups become
    training, except those with validation cases only.

    In all these modes, the new `group` of a case joins the images of one patient and their copies.

    Args:
        cases: the cases of all splits.
        pairs: pairs of images of which one is a copy of the other.
        mode: `none`, `image`, `near_duplicate` or `patient`; `none` returns the cases unchanged.
        seed: seed of the digest.

    Raises StudyError if the test or the training split would be empty, or if no case states its patient for `patient`.
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
    # A hospital holds a published patient as a whole, whatever the mode.
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
    """The groups that form the test split."""
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
    """The new split for each old split within a group."""
    if tested:
        return dict.fromkeys(counts, "test")
    return dict.fromkeys(counts, "validation" if set(counts) == {"validation"} else "train")
