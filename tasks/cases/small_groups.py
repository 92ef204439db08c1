"""Counts of few cases, which stay where they are: nobody can be told from a group that is not told of."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)
WITHHELD = "withheld"
"""What stands where a count is withheld."""


def is_small(count: int, least: int) -> bool:
    """Whether so many cases are too few to be told of; that there are none may be told."""
    return 0 < count < least


def tell(count: int | None, least: int) -> int | str | None:
    """A count, or that it is withheld; None, where nothing could be counted, may be told."""
    return WITHHELD if count is not None and is_small(count, least) else count


def tellable(groups: Mapping[Name, Sequence[int]], least: int, among: Collection[Name] | None = None) -> set[Name]:
    """The groups whose counts may be told beside the counts of all of them together.

    Each count of a group that is told is 0 or at least `least`; and so are those of the rest, or they would follow by
    subtraction: where the rest is too small, the smallest groups of those that could be told join it.

    Args:
        groups: by group the numbers of its cases of each kind. The kinds of all groups are the same.
        least: fewest cases.
        among: the groups that may be told at all; every one where not given.
    """
    may = groups.keys() if among is None else among
    told = {name for name in may if not any(is_small(count, least) for count in groups[name])}
    while any(is_small(rest, least) for rest in _rest(groups, told)):
        large = [name for name in told if any(groups[name])]
        if not large:
            break
        told.remove(min(large, key=lambda name: (sum(groups[name]), str(name))))
    return told


def _rest(groups: Mapping[Name, Sequence[int]], told: set[Name]) -> list[int]:
    rest = [counts for name, counts in groups.items() if name not in told]
    return [sum(each) for each in zip(*rest, strict=True)]


def tell_counts(counts: Mapping[str, int], least: int) -> dict[str, int | str]:
    """Counts by name of what all cases are made of, those that are withheld marked as such."""
    told = tellable({name: (count,) for name, count in counts.items()}, least)
    return {name: count if name in told else WITHHELD for name, count in counts.items()}


def tell_columns(rows: Sequence[Mapping[str, Any]], least: int) -> list[dict[str, Any]]:
    """The rows of a table, each column of counts without those that are withheld."""
    columns = {name: {place: row[name] for place, row in enumerate(rows) if name in row} for name in _names(rows)}
    told = {
        name: tellable({place: (count,) for place, count in column.items()}, least)
        for name, column in columns.items()
        if all(isinstance(value, int) for value in column.values())
    }
    return [
        {name: value if name not in told or place in told[name] else WITHHELD for name, value in row.items()}
        for place, row in enumerate(rows)
    ]


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
