"""The weighted mean of updates by a secure sum: what a server gets that may see no single update."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.privacy.secure_aggregation.simulation import secure_sum
from tasks.records import UpdateCounts

logger = logging.getLogger("fed_rag.federate")
TOGETHER = "together"
"""Stands for all hospitals of a secure sum, in place of a hospital's name."""

State = Mapping[str, torch.Tensor]


def masked_mean(
    states: Sequence[State], counts: Sequence[UpdateCounts]
) -> tuple[dict[str, torch.Tensor], UpdateCounts]:
    """The sample-weighted mean of states in float32, and the counts of all hospitals together.

    Each hospital masks its tensors times its samples, and its samples, loss and steps. One whose training diverged
    sends nothing, as one that dropped out, and a warning names it. The mean differs from the plain one by the rounding
    of float32 at most.

    Raises StudyError if no majority of the hospitals sends a finite update.
    """
    vectors = {each.hospital: _vector(state, each) for state, each in zip(states, counts, strict=True)}
    gone = [hospital for hospital, vector in vectors.items() if not np.isfinite(vector).all()]
    for hospital in gone:
        logger.warning("%s has an update that is not finite: it sends none in this round", hospital)
    total = secure_sum(f"round {counts[0].round}", vectors, gone)
    *numbers, samples, loss, steps = np.split(total, _ends(states[0]))
    if samples[0] < 1:
        raise StudyError(f"Expected updates that stand for at least one sample, found {samples[0]:g} in all.")
    mean = {
        name: torch.from_numpy(part / samples[0]).view(states[0][name].shape).float()
        for name, part in zip(sorted(states[0]), numbers, strict=True)
    }
    together = UpdateCounts(TOGETHER, counts[0].round, round(samples[0]), float(loss[0] / samples[0]), round(steps[0]))
    return mean, together


def _vector(state: State, counts: UpdateCounts) -> NDArray[np.float64]:
    numbers = [counts.samples * state[name].double().numpy().ravel() for name in sorted(state)]
    return np.concatenate([*numbers, [counts.samples, counts.samples * counts.loss, counts.steps]])


def _ends(state: State) -> list[int]:
    """Where each part of a vector ends, but for the last."""
    sizes = [state[name].numel() for name in sorted(state)]
    return np.cumsum([*sizes, 1, 1]).tolist()
