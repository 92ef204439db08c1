"""Maximal marginal relevance against its formula, spelt out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.records import Neighbour
from tasks.retrieve.diversity import diversify


def library(seed: int, count: int) -> tuple[list[Neighbour], np.ndarray]:
    """Neighbours of one query by rank, and their rows; some of them lie close together."""
    chooser = np.random.default_rng(seed)
    rows = np.repeat(chooser.normal(size=(count, 6)), 2, axis=0)[:count] + 0.05 * chooser.normal(size=(count, 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    query = chooser.normal(size=6)
    similarities = rows @ (query / np.linalg.norm(query))
    order = np.argsort(-similarities)
    found = [Neighbour("q", rank, f"c:{place}", float(similarities[place])) for rank, place in enumerate(order)]
    return found, rows[order]


def by_formula(found: list[Neighbour], rows: np.ndarray, weight: float, depth: int) -> list[str]:
    chosen: list[int] = []
    while len(chosen) < min(depth, len(found)):
        scores = {
            n: (1 - weight) * found[n].similarity - weight * max((float(rows[n] @ rows[m]) for m in chosen), default=0)
            for n in range(len(found))
            if n not in chosen
        }
        chosen.append(max(scores, key=lambda n: (scores[n], -n)))
    return [found[n].neighbour_id for n in chosen]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 20), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 12))
def test_it_is_the_formula(seed: int, count: int, weight: float, depth: int) -> None:
    found, rows = library(seed, max(count, 1))
    found, rows = found[:count], rows[:count]
    ranked = diversify(found, rows, weight, depth)
    assert [each.neighbour_id for each in ranked] == by_formula(found, rows, weight, depth)
    assert [each.rank for each in ranked] == list(range(len(ranked)))
    assert {(each.neighbour_id, each.similarity) for each in ranked} <= {
        (each.neighbour_id, each.similarity) for each in found
    }


def test_without_diversity_nothing_changes() -> None:
    found, rows = library(1, 12)
    assert diversify(found, rows, 0.0, 12) == found
    assert diversify(found, rows, 0.0, 5) == found[:5]


def test_a_copy_of_the_nearest_comes_later() -> None:
    rows = np.array([[1, 0, 0], [1, 0, 0], [0.6, 0.8, 0]], dtype=np.float32)
    found = [Neighbour("q", rank, name, s) for rank, (name, s) in enumerate([("a", 0.9), ("copy", 0.9), ("b", 0.7)])]
    ranked = diversify(found, rows, 0.5, 3)
    assert [each.neighbour_id for each in ranked] == ["a", "b", "copy"]
    assert [each.similarity for each in ranked] == pytest.approx([0.9, 0.7, 0.9])
