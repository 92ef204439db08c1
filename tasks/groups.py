"""Which images belong together: neither a split nor a partition may part them."""

from collections.abc import Sequence

from tasks.records import Caption, Case


def image_groups(cases: Sequence[Case | Caption]) -> dict[str, str]:
    """The group of each image: images that share one through any chain of cases, or captions, have the same.

    A group is named after the first of its cases' groups in alphabetical order, or after its one image where these
    state none.
    """
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]
            node = parents[node]
        return node

    for case in cases:
        image = top(("image", case.image_id))
        if case.group is not None:
            low, high = sorted([image, top(("group", case.group))])
            parents[high] = low  # the smallest node stays on top, and groups come before images
    return {case.image_id: top(("image", case.image_id))[1] for case in cases}
