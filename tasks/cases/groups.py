"""Which images belong together: neither a split nor a partition may part them."""

from collections.abc import Iterable, Sequence

from tasks.records import Caption, Case


def image_groups(cases: Sequence[Case | Caption], links: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """The group of each image: images that share one through any chain of cases (or captions) and links have the same.

    A group is named after the first of its cases' groups in alphabetical order, or after the first of its images
    where these state none.

    Args:
        cases: whose images are grouped.
        links: pairs of image ids that belong together for another reason, as copies do; ids of no case join none.
    """
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]
            node = parents[node]
        return node

    def join(one: tuple[str, str], other: tuple[str, str]) -> None:
        low, high = sorted([top(one), top(other)])
        parents[high] = low  # the smallest node stays on top, and groups come before images

    for case in cases:
        top(("image", case.image_id))
        if case.group is not None:
            join(("image", case.image_id), ("group", case.group))
    for one, other in links:
        if ("image", one) in parents and ("image", other) in parents:
            join(("image", one), ("image", other))
    return {case.image_id: top(("image", case.image_id))[1] for case in cases}
