"""A probe after each switch of adapters: the layers that compute hold the weights that were meant, and use them.

Weights are copied into tensors that the engine found when it was made. A layer that got other tensors since, or was
merged or turned off, would go on as before without a word. To see that a layer still holds the tensor that was written
takes a comparison of addresses, where reading all values again took several times as long as the switch itself.
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
    address: int
    """Where the tensor lies in memory that switches write to."""

    def is_as_meant(self) -> bool:
        """Whether the layer still holds that tensor."""
        return bool(getattr(self.holder, self.attribute).data_ptr() == self.address)


class Probe:
    """Looks at the layers that compute with an adapter.

    Args:
        peft: the PEFT model.
        tensors: those that switches write to, by PEFT's exported names.
        adapter: its name in the model.
    """

    def __init__(self, peft: Any, tensors: Mapping[str, torch.Tensor], adapter: str) -> None:
        self._adapter = adapter
        self.uses = _uses(peft, tensors, adapter)
        # Two tensors of a layer are on or off together.
        self._layers = {id(use.layer): (name, use.layer) for name, use in self.uses.items()}.values()

    def check(self) -> None:
        """Raise StudyError if a layer holds another tensor than switches write to, or does not use it."""
        for name, layer in self._layers:
            if self._adapter not in layer.active_adapters or layer.disable_adapters or getattr(layer, "merged", False):
                raise _otherwise("it off at", name)
        for name, use in self.uses.items():
            if not use.is_as_meant():
                raise _otherwise("other weights in", name)


def _otherwise(found: str, name: str) -> StudyError:
    return StudyError(
        f"Expected the model to compute with the adapter that was switched on, found {found} {name}: "
        "check that the installed peft is that of requirements.lock."
    )


def _uses(peft: Any, tensors: Mapping[str, torch.Tensor], adapter: str) -> dict[str, Use]:
    """Of each tensor where the model computes with it."""
    modules = dict(peft.named_modules())
    found = {}
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        place = path
        while not hasattr(modules.get(place), "active_adapters"):
            place = place.rpartition(".")[0]
        layer, rest = modules[place], path[len(place) + 1 :]
        if isinstance(layer, LoraLayer):
            holder = getattr(layer, rest)[adapter]
        else:  # a whole module that learns
            holder = layer.modules_to_save[adapter].get_submodule(rest)
        found[name] = Use(layer, holder, attribute, tensor.data_ptr())
    return found
