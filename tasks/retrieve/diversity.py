"""Diversifies neighbours: near the query, but not all alike."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tasks.records import Neighbour
from tasks.retrieve.rows import Rows


def diversify(found: Sequence[Neighbour], rows: Rows, diversity: float, depth: int) -> list[Neighbour]:
    """At most `depth` of one query's neighbours, ranked by maximal marginal relevance (Carbonell & Goldstein 1998).

    Each next neighbour has the highest `(1 - diversity) * similarity - diversity * s`, where `s` is its similarity to
    the most similar neighbour chosen before it. So the nearest comes first, and 0 keeps the order.

    Args:
        found: the query's neighbours, by rank.
        rows: unit rows of the same cases, `(n, d)`.
        diversity: 1 - lambda, from 0 up to but not including 1.
        depth: neighbours wanted.
    """
    if not found:
        return []
    alike = rows @ rows.T
    near = (1 - diversity) * np.array([neighbour.similarity for neighbour in found])
    likest = np.zeros(len(found))
    waiting = np.ones(len(found), dtype=bool)
    ranked: list[Neighbour] = []
    while len(ranked) < min(depth, len(found)):
        best = int(np.where(waiting, near - diversity * likest, -np.inf).argmax())
        likest = alike[best] if not ranked else np.maximum(likest, alike[best])
        waiting[best] = False
        ranked.append(replace(found[best], rank=len(ranked)))
    return ranked
