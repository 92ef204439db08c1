"""Screening and averaging of adapter updates: pure functions of named tensors and counts."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tasks.errors import StudyError

logger = logging.getLogger("fed_rag.federate")


def screen(states: Mapping[str, Mapping[str, torch.Tensor]]) -> list[str]:
    """Names of the hospitals whose update is finite throughout; each other one is warned about by name.

    One NaN would poison the average for everyone.
    """
    finite = []
    for hospital, state in states.items():
        bad = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
        if bad:
            logger.warning("%s sent an update that is not finite (%s): left out of this round", hospital, bad[0])
        else:
            finite.append(hospital)
    if not finite:
        raise StudyError(
            "Expected at least one finite update in the round, found none: lower federation.learning_rate."
        )
    return finite


def fedavg(states: Sequence[Mapping[str, torch.Tensor]], samples: Sequence[int]) -> dict[str, torch.Tensor]:
    """The sample-weighted mean of adapter states (FedAvg, arXiv 1602.05629), summed in float64, given in float32."""
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
