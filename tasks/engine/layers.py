"""Find the linear layers of a part of a model (text model or tower), and add LoRA to them."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from tasks.engine.base import Base, outline
from tasks.engine.families.family import Family
from tasks.engine.fast.bfloat16 import multiply_in_bfloat16
from tasks.engine.fast.dropout import drop_cheaply
from tasks.engine.fast.quantise import text_linear
from tasks.errors import StudyError

SIDES = {"text": "the text model", "tower": "the vision tower"}


def linear_layers(model: Any, family: Family, side: str, targets: Sequence[str], setting: str) -> list[str]:
    """Full names of the linear layers of a side (`text` or `tower`) whose last names are among the targets.

    The projector belongs to neither side. Raises StudyError if a target names no layer; `setting` is the name of the
    targets in that message.
    """
    names = [name for name in _linear(model, family, side) if name.split(".")[-1] in targets]
    absent = sorted(set(targets) - {name.split(".")[-1] for name in names})
    if absent:
        known = sorted({name.split(".")[-1] for name in _linear(model, family, side)})
        raise StudyError(
            f"Expected {setting} to name linear layers of {SIDES[side]}, found {absent[0]!r}, which it lacks: "
            f"choose among {', '.join(known)}."
        )
    return names


def _linear(model: Any, family: Family, side: str) -> list[str]:
    """Full names of all linear layers of a side."""
    if side == "text":
        return list(text_linear(model))
    return [
        name
        for name, module in model.get_submodule(family.tower).named_modules(prefix=family.tower)
        if _is_linear(module) and not name.startswith(f"{family.projector}.")
    ]


def _is_linear(module: torch.nn.Module) -> bool:
    """Whether it is a linear layer; a convolution of 1 x 1 is one, applied at each place of a map."""
    pointwise = isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return pointwise or isinstance(module, torch.nn.Linear)


def check_layers(name: str, revision: str | None, targets: Iterable[tuple[str, Sequence[str], str]]) -> None:
    """Raise StudyError if a target names no layer of the model. No weight is read, only the configuration.

    Each of `targets` is a side, the names of its layers, and the setting they come from.
    """
    model, family = outline(name, revision)
    for side, names, setting in targets:
        linear_layers(model, family, side, names, setting)


def add_lora(base: Base, config: LoraConfig) -> Any:
    """Wrap the base's model in place as a PEFT model; the adapter is float32 whatever the base's dtype."""
    with warnings.catch_warnings():
        # PEFT reads a property that Transformers has renamed; its meaning is the same.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        peft = get_peft_model(base.model, config, autocast_adapter_dtype=True)
    multiply_in_bfloat16(peft)
    drop_cheaply(peft)
    return peft


class Widened:
    """Makes a module compute and learn in float32 within a model of another dtype, which would lose small steps.

    Args:
        module: changed in place until `undo`.
        dtype: dtype of the model around it.
    """

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype) -> None:
        self.module, self.dtype = module.float().requires_grad_(True), dtype
        for part in module.modules():
            if type(part) is torch.nn.LayerNorm:
                part.__class__ = LayerNorm
        self._hooks = [
            module.register_forward_pre_hook(lambda _, given: tuple(each.float() for each in given)),
            module.register_forward_hook(lambda _, __, made: made.to(dtype)),
        ]

    def undo(self) -> None:
        """Return the module to the model's dtype."""
        for hook in self._hooks:
            hook.remove()
        self.module.to(self.dtype)
        norms: list[torch.nn.Module] = [part for part in self.module.modules() if type(part) is LayerNorm]
        for part in norms:
            part.__class__ = torch.nn.LayerNorm


class LayerNorm(torch.nn.LayerNorm):
    """Torch's, whose weights learn the same with any number of threads: torch adds up their gradients by thread."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As torch's, of `(..., d)`; in training it multiplies by the weights in a step of its own."""
        if not torch.is_grad_enabled():
            return super().forward(x)
        return functional.layer_norm(x, self.normalized_shape, eps=self.eps) * self.weight + self.bias
