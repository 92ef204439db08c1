"""Which images belong together: no split or partition may separate them."""

from collections.abc import Iterable, Sequence

from tasks.records import Caption, Case


def image_groups(cases: Sequence[Case | Caption], links: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """The group of each image. Images connected by any chain of cases (or captions) and links are in one group.

    The group's name is the first of its cases' groups in alphabetical order, or the first of its images if the cases
    state no group.

    Args:
        cases: cases whose images are grouped.
        links: pairs of image ids that belong together for another reason, such as copies. Pairs with an id that no
            case has are ignored.
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
    # "group" sorts before "image", so a stated group names the subset if there is one.
    return {name: min(subset)[1] for subset in found.subsets() for kind, name in subset if kind == "image"}
