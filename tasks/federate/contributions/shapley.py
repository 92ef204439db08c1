"""Shapley values of hospitals (Shapley, 1953), as pure functions of the values of coalitions.

A hospital's value is what it adds to those before it, on average over the orders in which hospitals can join.
"""

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence

EXACT = 8
"""Most hospitals of which all coalitions are measured: 256."""
Coalition = frozenset[str]
Order = tuple[str, ...]


def orders(names: Sequence[str], count: int, seed: int) -> list[Order]:
    """The orders in which hospitals join: all of up to EXACT hospitals, else `count` drawn at random.

    The mean over drawn orders is unbiased (Castro et al., Computers & Operations Research 2009).
    """
    if len(names) <= EXACT:
        return list(itertools.permutations(names))
    drawn = random.Random(seed)
    return [tuple(drawn.sample(names, len(names))) for _ in range(count)]


def coalitions(ways: Sequence[Order]) -> list[Coalition]:
    """All coalitions whose value is asked for: those on the way of an order, single hospitals, and all but one."""
    names = frozenset(ways[0])
    joining = {frozenset(way[:count]) for way in ways for count in range(len(way) + 1)}
    single = {frozenset({name}) for name in names}
    return sorted(joining | single | {names - each for each in single}, key=lambda each: (len(each), sorted(each)))


def shapley(ways: Sequence[Order], value: Callable[[Coalition], float]) -> dict[str, tuple[float, float]]:
    """By hospital, the mean of what it adds over orders, and the standard error of that mean as if they were drawn."""
    added: dict[str, list[float]] = {name: [] for name in sorted(ways[0])}
    for way in ways:
        before = value(frozenset())
        for place, name in enumerate(way, start=1):
            after = value(frozenset(way[:place]))
            added[name].append(after - before)
            before = after
    return {
        name: (math.fsum(each) / len(each), statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0)
        for name, each in added.items()
    }
