"""A mixture of a hospital's own adapter and the one for all (APFL, arXiv 2003.13461): a mean of their products."""

from collections.abc import Mapping

import torch

from tasks.engine.adapter import State
from tasks.engine.residual import MARK, parted

WEIGHTS = tuple(tenth / 10 for tenth in range(11))
"""Weights of the hospital's own adapter that are tried, from none to all."""


def mixed(own: Mapping[str, torch.Tensor], for_all: Mapping[str, torch.Tensor], weight: float) -> State:
    """The adapter that changes each layer by `weight` of its own product, and by the rest of the one for all.

    The second is its residual, so that both keep their rank. A residual of the one for all is a part of that. `own` has
    no residual, and neither has other tensors than LoRA's.
    """
    lora, residual = parted(for_all)
    state = {name: _scaled(name, tensor, weight) for name, tensor in own.items()}
    for name, tensor in lora.items():
        hidden = name.replace(".lora_", MARK)
        parts = [_scaled(name, each, 1 - weight) for each in (tensor, residual.get(hidden)) if each is not None]
        state[hidden] = torch.cat(parts, dim=0 if ".lora_A." in name else 1)
    return state


def _scaled(name: str, tensor: torch.Tensor, weight: float) -> torch.Tensor:
    return weight * tensor if ".lora_B." in name else tensor
