"""Where LoRA goes: the linear layers of one side of a model, and the wrapping of them."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tasks.engine.base import Base, outline
from tasks.engine.families.family import Family
from tasks.engine.fast.quantise import text_linear
from tasks.errors import StudyError

SIDES = {"text": "the text model", "tower": "the vision tower"}


def linear_layers(model: Any, family: Family, side: str, targets: Sequence[str], setting: str) -> list[str]:
    """Full names of the linear layers of a side (`text` or `tower`) whose last names are among the targets.

    The projector belongs to neither. Raises StudyError where a target names no layer; `setting` is what the message
    calls the targets.
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
    """Full names of a side's linear layers."""
    if side == "text":
        return list(text_linear(model))
    return [
        name
        for name, module in model.get_submodule(family.tower).named_modules(prefix=family.tower)
        if isinstance(module, torch.nn.Linear) and not name.startswith(f"{family.projector}.")
    ]


def check_layers(name: str, revision: str | None, targets: Iterable[tuple[str, Sequence[str], str]]) -> None:
    """Raise StudyError where a target names no layer of the model; each is a side, names, and what they are called.

    It is told from the configuration, before a weight is read.
    """
    model, family = outline(name, revision)
    for side, names, setting in targets:
        linear_layers(model, family, side, names, setting)


def add_lora(base: Base, config: LoraConfig) -> Any:
    """The base's model as a PEFT model, wrapped in place; the adapter is float32 whatever the base computes in."""
    with warnings.catch_warnings():
        # PEFT asks for a property that Transformers has renamed; both are right about what it means.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(base.model, config, autocast_adapter_dtype=True)


class Widened:
    """A module that computes and learns in float32 within a model of another type: small steps would be lost there.

    Args:
        module: it is changed in place, until `undo`.
        dtype: what the model around it computes in.
    """

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype) -> None:
        self.module, self.dtype = module.float().requires_grad_(True), dtype
        self._hooks = [
            module.register_forward_pre_hook(lambda _, given: tuple(each.float() for each in given)),
            module.register_forward_hook(lambda _, __, made: made.to(dtype)),
        ]

    def undo(self) -> None:
        """Compute in the model's type again."""
        for hook in self._hooks:
            hook.remove()
        self.module.to(self.dtype)
