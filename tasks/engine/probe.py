"""A probe after each switch of adapters: the layers that compute hold the weights that were meant, and use them.

Weights are copied into tensors that the engine found when it was made. A layer that got other tensors since, or was
merged or turned off, would go on as before without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from tasks.errors import StudyError


@dataclass(frozen=True)
class Use:
    """Where the model computes with one tensor of the adapter."""

    layer: Any
    """PEFT's layer, which knows whether its adapter is on."""
    holder: torch.nn.Module
    attribute: str


def uses(peft: Any, names: Mapping[str, torch.Tensor], adapter: str) -> dict[str, Use]:
    """Of each tensor of an adapter, by PEFT's exported names, where a PEFT model computes with it."""
    modules = dict(peft.named_modules())
    found = {}
    for name in names:
        path, _, attribute = name.rpartition(".")
        place = path
        while not hasattr(modules.get(place), "active_adapters"):
            place = place.rpartition(".")[0]
        layer, rest = modules[place], path[len(place) + 1 :]
        if isinstance(layer, LoraLayer):
            holder = getattr(layer, rest)[adapter]
        else:  # a whole module that learns
            holder = layer.modules_to_save[adapter].get_submodule(rest)
        found[name] = Use(layer, holder, attribute)
    return found


def check_in_use(where: Mapping[str, Use], state: Mapping[str, torch.Tensor], adapter: str) -> None:
    """Read the adapter back from the layers that compute.

    Raises StudyError if one of them holds another tensor than the state has, or does not use it.
    """
    for name, use in where.items():
        held = getattr(use.holder, use.attribute)
        meant = state[name].to(held)
        on = adapter in use.layer.active_adapters and not use.layer.disable_adapters
        if not on or getattr(use.layer, "merged", False) or not torch.allclose(held, meant, 0, 0, equal_nan=True):
            raise StudyError(
                "Expected the model to compute with the adapter that was switched on, found "
                f"{'other weights in' if on else 'it off at'} {name}: check that the installed peft is that of "
                "requirements.lock."
            )
