"""Which of the dealt cases a study keeps: a kind of question, a share of the training images."""

from collections.abc import Sequence

from tasks.errors import StudyError
from tasks.records import Case
from tasks.store import derived_seed


def keep(cases: Sequence[Case], kind: str, training_share: float, seed: int) -> list[Case]:
    """The cases of a kind, in their order, those of training on about `training_share` of the training images.

    An image's place follows from its id and the seed alone, whoever holds it: a smaller share lies within a larger.

    Args:
        cases: of all splits.
        kind: `closed`, `open` or `all`.
        training_share: above 0, up to 1.
        seed: of the draw.

    Raises StudyError where training or test cases were there and none is left.
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
