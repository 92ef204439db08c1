"""Which of the test images a base was trained on, in counts."""

from collections.abc import Mapping, Sequence

from tasks.cases.seen import Sight
from tasks.cases.small_groups import is_small, publishable
from tasks.records import Caption, Case
from tasks.records.shared_documents import SeenCounts


def seen_counts(test: Sequence[Case | Caption], found: Mapping[str, Sight], least: int = 1) -> dict[str, SeenCounts]:
    """Count test `images` and test `cases` that the base has seen; nothing is told of fewer than `least` of either.

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
    told = publishable(groups, least)
    rows = {"images": len(images), "cases": len(test)}
    return {
        name: _counts(n, [each[place] for each in groups.values()], told, least)
        for place, (name, n) in enumerate(rows.items())
    }


def _counts(n: int, parts: Sequence[int], told: set[str | None], least: int) -> SeenCounts:
    """The counts of one column: `parts` are those of identical, alike and unseen images, of which some are told."""
    identical, alike, _ = parts
    known = None in told or {"identical", "alike"} <= told
    exact = identical if "identical" in told else None
    return {
        "n": None if is_small(n, least) else n,
        "seen": identical + alike if known else None,
        "identical": exact,
        "at_least": identical + alike if known else exact or 0,
    }
