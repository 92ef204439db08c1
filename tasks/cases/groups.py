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
    from scipy.cluster.hierarchy import DisjointSet  # scipy is imported where something is computed

    found = DisjointSet()
    for case in cases:
        found.add(("image", case.image_id))
        if case.group is not None:
            found.add(("group", case.group))
            found.merge(("image", case.image_id), ("group", case.group))
    for one, other in links:
        if ("image", one) in found and ("image", other) in found:
            found.merge(("image", one), ("image", other))
    # Groups come before images, each in alphabetical order.
    return {name: min(subset)[1] for subset in found.subsets() for kind, name in subset if kind == "image"}
