"""Choose how a hospital uses its retrieved cases, by its trained adapter's loss on the held-out images.

Three things are chosen together, so that the held-out answers are likeliest: how many cases a prompt shows and from
which similarity on (where `retrieval.k` is `auto`), and the weight and temperature with which their answers are mixed
into the model's distribution (with `retrieval.mixture`; kNN-LM, arXiv 1911.00172, sets its weight so). No test
case has a part in it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tasks.engine.mixture import Memory, Mixture
from tasks.records.tuning import Tuning

PLAIN = Mixture(0.0, 1.0)
"""Mixes nothing."""
WEIGHTS = tuple(tenth / 10 for tenth in range(1, 10))
"""Of the retrieved answers. Never 1: then an answer that no retrieved case has would be impossible."""
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""On similarities, which lie between -1 and 1."""
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the held-out cases' similarities: the floors that are tried, beside none."""


@dataclass(frozen=True)
class HeldOut:
    """A held-out case under one prompt."""

    answer: tuple[int, ...]
    """Tokens of the right answer, the end token last."""
    probabilities: tuple[float, ...]
    """The model's probability of each."""
    memory: Memory
    """The cases that the prompt shows, nearest first."""


def tune(rows: Sequence[Sequence[HeldOut]], most: int, floor: float, chooses_context: bool, mixes: bool) -> Tuning:
    """The setting with the least mean negative log-likelihood of the held-out answers.

    Args:
        rows: for each held-out case, its prompts with 0, 1, 2, ... shown cases; fewer if it has fewer neighbours.
        most: most cases that the study shows.
        floor: the similarity below which the study shows no case.
        chooses_context: whether number of cases and floor are chosen; else they are the study's.
        mixes: whether weight and temperature are chosen; else nothing is mixed.

    Of settings that are equally good the first is taken: fewer cases, the lower floor, the smaller weight. Without
    held-out cases it is the study's setting, and nothing is mixed.
    """
    contexts, mixtures = [(most, floor)], [PLAIN]
    if chooses_context:
        contexts = list(_contexts(rows, most, floor))
    if mixes:
        mixtures += [Mixture(weight, heat) for weight, heat in product(WEIGHTS, TEMPERATURES)]
    losses = [_losses(row, mixtures) for row in rows]
    if not losses:
        return Tuning(k=most, floor=floor, weight=0.0, temperature=1.0, cases=0, loss=None, untuned=None)
    means = {(k, least): _means(rows, losses, k, least) for k, least in contexts}
    (k, least), best = min(means.items(), key=lambda each: each[1].min())
    return Tuning(
        k=k,
        floor=least,
        weight=mixtures[best.argmin()].weight,
        temperature=mixtures[best.argmin()].temperature,
        cases=len(rows),
        loss=float(best.min()),
        untuned=float(_means(rows, losses, most, floor)[0]),
    )


def _contexts(rows: Sequence[Sequence[HeldOut]], most: int, floor: float) -> Iterator[tuple[int, float]]:
    """The numbers of cases and floors to try; a floor changes nothing if no case is shown."""
    near = [similarity for row in rows for similarity in row[-1].memory.similarities]
    floors = [floor, *sorted({*np.quantile(near, QUANTILES).tolist()} if near else ())]
    yield 0, floor
    for k in range(1, most + 1):
        yield from ((k, least) for least in floors if least >= floor)


def _means(rows: Sequence[Sequence[HeldOut]], losses: Sequence[np.ndarray], k: int, floor: float) -> np.ndarray:
    """Mean loss over the held-out cases with each mixture, `(mixtures,)`, where prompts show up to k cases."""
    sizes = [_context_size(row, k, floor) for row in rows]
    means: np.ndarray = np.mean([case[count] for case, count in zip(losses, sizes, strict=True)], axis=0)
    return means


def _context_size(row: Sequence[HeldOut], k: int, floor: float) -> int:
    """How many cases a prompt shows at this setting."""
    return min(k, sum(similarity >= floor for similarity in row[-1].memory.similarities[:k]), len(row) - 1)


def _losses(row: Sequence[HeldOut], mixtures: Sequence[Mixture]) -> np.ndarray:
    """Negative log-likelihood of a case's answer with each of its prompts, `(prompts, mixtures)`."""
    return np.array([[_loss(held_out, mixture) for mixture in mixtures] for held_out in row])


def _loss(held_out: HeldOut, mixture: Mixture) -> float:
    total = 0.0
    for place, (token, probability) in enumerate(zip(held_out.answer, held_out.probabilities, strict=True)):
        if mixture.weight:
            following = held_out.memory.following(held_out.answer[:place], mixture.temperature)
            if following:
                probability = (1 - mixture.weight) * probability + mixture.weight * following.get(token, 0.0)
        total -= math.log(max(probability, 1e-12))
    return total
