"""Which of the test images a base was trained on, in counts."""

from collections.abc import Mapping, Sequence

from tasks.cases.seen import Sight
from tasks.cases.small_groups import is_small, publishable
from tasks.records import Caption, Case
from tasks.records.shared_documents import SeenCounts, SeenOfDataset


def seen_counts(test: Sequence[Case | Caption], found: Mapping[str, Sight], least: int = 1) -> SeenOfDataset:
    """Count test images and test cases that the base has seen; nothing is told of fewer than `least` of either.

    Args:
        test: the test cases, or captions where there are no cases.
        found: how each of their images was seen, by image id; images that were not seen are absent.
        least: smallest count above 0 that is told.
    """
    images = {record.image_id for record in test}
    groups = {
        sight: (
            sum(found.get(image) == sight for image in images),
            sum(found.get(record.image_id) == sight for record in test),
        )
        for sight in ("identical", "alike", None)
    }
    told = set(publishable(groups, least))
    if any(is_small(n, least) for n in (len(images), len(test))):
        told.discard(None)  # what is seen would follow from it
    of_images, of_cases = zip(*groups.values(), strict=True)
    return {"images": _counts(of_images, told, least), "cases": _counts(of_cases, told, least)}


def _counts(parts: Sequence[int], told: set[str | None], least: int) -> SeenCounts:
    """The counts of images, or of cases: `parts` are those identical, alike and not seen, of which some are told."""
    identical, alike, _ = parts
    known = None in told or {"identical", "alike"} <= told
    exact = identical if "identical" in told else None
    return {
        "n": None if is_small(sum(parts), least) else sum(parts),
        "seen": identical + alike if known else None,
        "identical": exact,
        "at_least": identical + alike if known else exact or 0,
    }
