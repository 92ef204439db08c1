"""The weighted mean of updates by a secure sum: what a server gets that may see no single update."""

import logging
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
State = Mapping[tuple[str, str], torch.Tensor]
"""Tensors by group and name."""


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
    states = [_flat(update) for update in updates]
    vectors = {each.hospital: _vector(state, each) for state, each in zip(states, updates, strict=True)}
    gone = [hospital for hospital, vector in vectors.items() if not np.isfinite(vector).all()]
    for hospital in gone:
        logger.warning("%s has an update that is not finite: it sends none in this round", hospital)
    total = secure_sum(f"round {updates[0].base_round + 1}", vectors, gone)
    *numbers, samples, loss, steps = np.split(total, _ends(states[0]))
    if samples[0] < 1:
        raise StudyError(f"Expected updates that stand for at least one sample, found {samples[0]:g} in all.")
    groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group in updates[0].parts}
    for (group, name), part in zip(sorted(states[0]), numbers, strict=True):
        groups[group][name] = torch.from_numpy(part / samples[0]).view(states[0][group, name].shape).float()
    number, loss_of_all = updates[0].base_round + 1, float(loss[0] / samples[0])
    counts = UpdateCounts(TOGETHER, number, round(samples[0]), loss_of_all, round(steps[0]), updates[0].base)
    return ServerState(groups), counts


def _flat(update: Update) -> State:
    return {(group, name): tensor for group, part in update.parts.items() for name, tensor in part.items()}


def _vector(state: State, update: Update) -> NDArray[np.float64]:
    numbers = [update.samples * state[name].double().numpy().ravel() for name in sorted(state)]
    return np.concatenate([*numbers, [update.samples, update.samples * update.loss, update.steps]])


def _ends(state: State) -> list[int]:
    """Where each part of a vector ends, but for the last."""
    sizes = [state[name].numel() for name in sorted(state)]
    return np.cumsum([*sizes, 1, 1]).tolist()
