"""Which of the partitioned cases a study keeps: a kind of question, a share of the training images."""

from collections.abc import Sequence

from tasks.errors import StudyError
from tasks.records import Case
from tasks.store import derived_seed


def keep(cases: Sequence[Case], kind: str, training_share: float, seed: int) -> list[Case]:
    """The cases of one kind, in their order; of the training images, about `training_share` are kept.

    Whether an image is kept depends only on its id and the seed, so a smaller share is a subset of a larger one.

    Args:
        cases: the cases of all splits.
        kind: `closed`, `open` or `all`.
        training_share: above 0, up to 1.
        seed: seed of the draw.

    Raises StudyError if there were training or test cases and none of them is left.
    """
    kept = [
        case
        for case in cases
        if kind in ("all", case.kind)
        and (case.split != "train" or derived_seed(seed, "training", case.image_id) < training_share * 2**31)
    ]
    for split in ("train", "test"):
        if any(case.split == split for case in cases) and not any(case.split == split for case in kept):
            raise StudyError(
                f"Expected {split} cases with partition.kind={kind} and partition.training_share={training_share:g}, "
                f"found none among {len(cases)} cases: loosen these settings."
            )
    return kept
