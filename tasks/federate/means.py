"""Means of named tensors, as pure functions of states and weights. Sums are in float64."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tasks.errors import StudyError


def weighted_mean(states: Sequence[Mapping[str, torch.Tensor]], samples: Sequence[int]) -> dict[str, torch.Tensor]:
    """The sample-weighted mean of states with the same names and shapes, summed in float64, returned in float32.

    Raises StudyError if a state has no samples.
    """
    if min(samples) <= 0:
        raise StudyError(f"Expected every update to stand for at least one sample, found {min(samples)}.")
    weights = np.asarray(samples, dtype=np.float64) / sum(samples)
    return {
        name: sum(
            (weight * state[name].double() for weight, state in zip(weights.tolist(), states, strict=True)),
            torch.zeros(states[0][name].shape, dtype=torch.float64),
        ).float()
        for name in states[0]
    }
