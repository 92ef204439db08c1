"""Means of named tensors, as pure functions of states and weights. Sums are in float64."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from tasks.errors import StudyError


def weighted_mean(states: Sequence[Mapping[str, torch.Tensor]], samples: Sequence[int]) -> dict[str, torch.Tensor]:
    """The sample-weighted mean of states with the same names and shapes, summed in float64, returned in float32.

    Raises StudyError if a state has no samples.
    """
    return {name: tensor.float() for name, tensor in weighted_sum(states, shares(samples)).items()}


def mean_delta(
    start: Mapping[str, torch.Tensor], states: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """The weighted sum of the steps from a start to each state, in float64; with `shares` as weights, their mean."""
    steps = ({name: tensor.double() - start[name].double() for name, tensor in state.items()} for state in states)
    return weighted_sum(steps, weights)


def shares(samples: Sequence[int]) -> list[float]:
    """Each hospital's share of the samples.

    Raises StudyError if one has none.
    """
    if min(samples) <= 0:
        raise StudyError(f"Expected every update to stand for at least one sample, found {min(samples)}.")
    found: list[float] = (np.asarray(samples, dtype=np.float64) / sum(samples)).tolist()
    return found


def weighted_sum(states: Iterable[Mapping[str, torch.Tensor]], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """The sum of states, each times its weight, in float64. One state is in memory at a time.

    Raises KeyError if one has other names than the first.
    """
    total: dict[str, torch.Tensor] = {}
    for weight, state in zip(weights, states, strict=True):
        total = total or {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in state.items()}
        if other := state.keys() ^ total.keys():
            raise KeyError(min(other))
        for name, tensor in state.items():
            total[name] += tensor.to(torch.float64, copy=True).mul_(weight)
    return total
