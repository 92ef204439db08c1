"""Right answers of two configurations by image, so that their difference keeps its pairs and names no image."""

from collections.abc import Mapping, Sequence

from tasks.records import Prediction
from tasks.score.outcomes import judge


def right_by_image(
    rows: Sequence[Prediction], images: Mapping[str, str], configurations: Sequence[str]
) -> list[list[float]]:
    """For each image the number of questions, and the right answers to them by each configuration, sorted by figures.

    Args:
        rows: answers of these and of other configurations, each to the same cases.
        images: the image of each case.
        configurations: their names.
    """
    sums: dict[str, list[float]] = {}
    for place, name in enumerate(configurations, start=1):
        for row in rows:
            if row.configuration == name:
                found = sums.setdefault(images[row.case_id], [0.0] * (1 + len(configurations)))
                found[0] += place == 1
                found[place] += judge(row).correct
    return sorted(sums.values())
