"""Steps from one adapter to another as rows of numbers, for rules and attacks that see whole updates."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

State = Mapping[str, torch.Tensor]


def delta(state: State, start: State) -> NDArray[np.float64]:
    """The step from one state to another, `(d,)` in float64, tensors in the order of their names."""
    return np.concatenate([(state[name].double() - start[name].double()).numpy().ravel() for name in sorted(start)])


def moved(start: State, step: NDArray[np.float64]) -> dict[str, torch.Tensor]:
    """The state that is a step `(d,)` away from another, in float32."""
    names = sorted(start)
    parts = np.split(step, np.cumsum([start[name].numel() for name in names])[:-1])
    return {
        name: (start[name].double() + torch.from_numpy(part).view(start[name].shape)).float()
        for name, part in zip(names, parts, strict=True)
    }
