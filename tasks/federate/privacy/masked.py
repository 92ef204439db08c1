"""The weighted mean of updates by a secure sum: what a server gets that may see no single update."""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.simulation import secure_sum
from tasks.federate.state import ServerState, Update
from tasks.records import UpdateCounts
from tasks.records.federation import TOGETHER

logger = logging.getLogger("fed_rag.federate")
State = Mapping[str, torch.Tensor]
Layout = Mapping[tuple[str, str], tuple[int, ...]]
"""Shapes of an update's tensors, by group and name; in the order of these a vector has their numbers."""
COUNTED = 3
"""Numbers of a vector behind those of the tensors: samples, loss and steps."""


def masked_mean(updates: Sequence[Update]) -> tuple[ServerState, UpdateCounts]:
    """The sample-weighted mean of updates, group by group, in float32, and the counts of all hospitals together.

    Each hospital masks its tensors times its samples, and its samples, loss and steps. One whose training diverged
    sends nothing, as one that dropped out, and a warning names it. The mean differs from the plain one by the rounding
    of float32 at most.

    Raises StudyError for a single update, or if no majority of the hospitals sends a finite update.
    """
    if len(updates) < 2:
        raise StudyError(
            f"Expected at least 2 hospitals in a secure sum, found {len(updates)}, whose update the sum would be: ask "
            "more hospitals in each round."
        )
    vectors = {each.hospital: vector_of(each) for each in updates}
    gone = [hospital for hospital, vector in vectors.items() if not np.isfinite(vector).all()]
    for hospital in gone:
        logger.warning("%s has an update that is not finite: it sends none in this round", hospital)
    first, number = updates[0], updates[0].base_round + 1
    return mean_of(secure_sum(f"round {number}", vectors, gone), layout_of(first.parts), number, first.base)


def layout_of(parts: Mapping[str, State]) -> Layout:
    """The shapes of an update's tensors, which are given by group."""
    return {(group, name): tuple(each.shape) for group, part in parts.items() for name, each in part.items()}


def length_of(layout: Layout) -> int:
    """How many numbers a hospital masks."""
    return sum(map(math.prod, layout.values())) + COUNTED


def vector_of(update: Update) -> NDArray[np.float64]:
    """What a hospital masks: its tensors times its samples, in a fixed order, its samples, loss and steps."""
    layout = layout_of(update.parts)
    numbers = [update.samples * update.parts[group][name].double().numpy().ravel() for group, name in sorted(layout)]
    return np.concatenate([*numbers, [update.samples, update.samples * update.loss, update.steps]])


def mean_of(total: NDArray[np.float64], layout: Layout, number: int, base: str) -> tuple[ServerState, UpdateCounts]:
    """The mean that a sum of vectors stands for, and the counts of all hospitals together.

    Args:
        total: the sum, as `vector_of` orders its numbers.
        layout: of the tensors.
        number: of the round.
        base: content of the base that all trained on.

    Raises StudyError if the sum stands for less than one sample.
    """
    ends = np.cumsum([*(math.prod(layout[each]) for each in sorted(layout)), 1, 1]).tolist()
    *numbers, samples, loss, steps = np.split(total, ends)
    if samples[0] < 1:
        raise StudyError(f"Expected updates that stand for at least one sample, found {samples[0]:g} in all.")
    groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group, _ in layout}
    for (group, name), part in zip(sorted(layout), numbers, strict=True):
        groups[group][name] = torch.from_numpy(part / samples[0]).view(layout[group, name]).float()
    counts = UpdateCounts(TOGETHER, number, round(samples[0]), float(loss[0] / samples[0]), round(steps[0]), base)
    return ServerState(groups), counts
