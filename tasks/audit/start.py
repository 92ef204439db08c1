"""What a federation that starts from a trained adapter would leak: its test cases that the adapter was trained on.

A test image that is a training image of the run itself as well is no such leak: the split gives it, and the audit of
the run counts it.
"""

from collections.abc import Collection, Iterable, Mapping

from tasks.records import Case
from tasks.text.normalise import normalise

Known = tuple[bytes, str]
"""The digest of an image's pixels, and a question about it."""


def questions_of(cases: Iterable[Case], pixels: Mapping[str, bytes]) -> set[Known]:
    """What cases ask about which images; `pixels` are the images' digests by id."""
    return {(pixels[case.image_id], normalise(case.question)) for case in cases}


def trained_before(cases: Iterable[Case], before: Collection[Known], pixels: Mapping[str, bytes]) -> list[str]:
    """Ids of the test cases that an adapter was trained on.

    They are those whose question about their image was a training case, and those whose image was a training image
    and is none now.

    Args:
        cases: of all splits, as they are now.
        before: the training cases of the adapter.
        pixels: digests of the pixels of the images of `cases`, by image id.
    """
    rows = list(cases)
    trained = {image for image, _ in before}
    training = {pixels[case.image_id] for case in rows if case.split == "train"}
    return [
        case.id
        for case in rows
        if case.split == "test"
        and ((pixels[case.image_id], normalise(case.question)) in before or pixels[case.image_id] in trained - training)
    ]
