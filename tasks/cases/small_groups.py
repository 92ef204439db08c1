"""Withhold counts of few cases, so that no report identifies anyone in a small group."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)
WITHHELD = "withheld"
"""Shown in place of a withheld count."""


def is_small(count: int, least: int) -> bool:
    """Whether a count is too small to publish; a count of 0 may be published."""
    return 0 < count < least


def withhold_small(count: int | None, least: int) -> int | str | None:
    """The count, or WITHHELD if it is too small; None (nothing could be counted) stays None."""
    return WITHHELD if count is not None and is_small(count, least) else count


def publishable(groups: Mapping[Name, Sequence[int]], least: int, among: Collection[Name] | None = None) -> set[Name]:
    """The groups whose counts may be published together with the totals over all groups.

    Each count of a published group is 0 or at least `least`. The same holds for the sums over all other groups, which
    readers could find by subtraction: if one is too small, the smallest publishable groups are withheld too.

    Args:
        groups: for each group, its number of cases of each kind; all groups have the same kinds.
        least: smallest count above 0 that may be published.
        among: the groups that may be published at all; all groups if None.
    """
    may = groups.keys() if among is None else among
    published = {name for name in may if not any(is_small(count, least) for count in groups[name])}
    while any(is_small(rest, least) for rest in _rest(groups, published)):
        large = [name for name in published if any(groups[name])]
        if not large:
            break
        published.remove(min(large, key=lambda name: (sum(groups[name]), str(name))))
    return published


def _rest(groups: Mapping[Name, Sequence[int]], published: set[Name]) -> list[int]:
    rest = [counts for name, counts in groups.items() if name not in published]
    return [sum(each) for each in zip(*rest, strict=True)]


def withhold_small_counts(counts: Mapping[str, int], least: int) -> dict[str, int | str]:
    """Counts by name, with WITHHELD in place of small ones; the counts add up to all cases."""
    published = publishable({name: (count,) for name, count in counts.items()}, least)
    return {name: count if name in published else WITHHELD for name, count in counts.items()}


def withhold_small_cells(rows: Sequence[Mapping[str, Any]], least: int) -> list[dict[str, Any]]:
    """The rows of a table, with WITHHELD in place of small counts; a column of counts holds only integers."""
    columns = {name: {place: row[name] for place, row in enumerate(rows) if name in row} for name in _names(rows)}
    published = {
        name: publishable({place: (count,) for place, count in column.items()}, least)
        for name, column in columns.items()
        if all(isinstance(value, int) for value in column.values())
    }
    return [
        {name: value if name not in published or place in published[name] else WITHHELD for name, value in row.items()}
        for place, row in enumerate(rows)
    ]


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
