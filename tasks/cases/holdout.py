"""The held-out set: a small part of the training images, kept for the loss of each round or epoch."""

from collections.abc import Sequence

from tasks.records import Case
from tasks.store import derived_seed


def split_holdout(cases: Sequence[Case], share: float, seed: int) -> tuple[list[Case], list[Case]]:
    """Split the training cases into training and held-out set; the latter has about `share` of the training images.

    At least one image stays in training. Images are ordered by a digest of seed and id alone.
    """
    training = [case for case in cases if case.split == "train"]
    images = sorted({case.image_id for case in training}, key=lambda image: derived_seed(seed, "holdout", image))
    held_out = set(images[: min(round(share * len(images)), len(images) - 1)])
    return (
        [case for case in training if case.image_id not in held_out],
        [case for case in training if case.image_id in held_out],
    )
