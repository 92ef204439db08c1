"""A second adapter that does not learn: what a mean of LoRA's factors misses, added beside the adapter in use."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from tasks.errors import StudyError

MARK = ".residual_"
"""In the names of its tensors, where LoRA's have `.lora_`."""


def parted(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of the adapter that learns, and those of the residual."""
    residual = {name: tensor for name, tensor in state.items() if MARK in name}
    return {name: tensor for name, tensor in state.items() if name not in residual}, residual


class Residual:
    """Adds `scaling * B A x` to the outputs of linear layers; each layer may have another rank.

    It is added to the base's layers below LoRA, in float32, so it stays on where LoRA is off and where a quantised base
    cannot be changed.

    Args:
        peft: the model with LoRA; no module of it is replaced.
    """

    def __init__(self, peft: Any) -> None:
        self._peft = peft
        self._hooks: list[Any] = []
        self._tensors: Mapping[str, torch.Tensor] = {}

    def put(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace what is added; nothing is where there are no tensors.

        Raises StudyError if a layer has no LoRA.
        """
        layers = self._layers(tensors)
        for hook in self._hooks:
            hook.remove()
        self._tensors = tensors
        self._hooks = [
            module.base_layer.register_forward_hook(self._adds(b, a, scale)) for module, b, a, scale in layers
        ]

    def merge(self) -> None:
        """Add it to the base's weights instead."""
        layers = self._layers(self._tensors)
        self.put({})
        for module, b, a, scale in layers:
            weight = module.base_layer.weight
            weight.data = (weight.data.float() + scale * b @ a).to(weight.dtype)

    def _layers(self, tensors: Mapping[str, torch.Tensor]) -> list[tuple[Any, torch.Tensor, torch.Tensor, float]]:
        """The layers, each with B, A and its scaling."""
        found = []
        for name in sorted(name for name in tensors if name.endswith(f"{MARK}A.weight")):
            try:
                module = self._peft.get_submodule(name.removesuffix(f"{MARK}A.weight"))
            except AttributeError:
                module = None
            if not hasattr(module, "base_layer"):
                raise StudyError(f"Expected a residual of layers with LoRA, found {name}: it is of another adapter.")
            device = module.base_layer.weight.device
            b, a = tensors[name.replace(f"{MARK}A", f"{MARK}B")].to(device), tensors[name].to(device)
            found.append((module, b, a, module.scaling["default"]))
        return found

    @staticmethod
    def _adds(b: torch.Tensor, a: torch.Tensor, scale: float) -> Callable[..., torch.Tensor]:
        def add(_: torch.nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> torch.Tensor:
            change = functional.linear(functional.linear(given[0].float(), a), b)
            return (made + scale * change).to(made.dtype)

        return add
