"""An adapter from elsewhere as the start of a federation: it comes through the door as an update does."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tasks.engine.adapter import CONFIG, State, load_state
from tasks.errors import StudyError
from tasks.federate.door import misshapen, other_config

DECISIVE = ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""The fields of PEFT's configuration by which the same tensors mean something else; names and shapes tell the rest."""

NEEDED = ("peft_type", "r", "lora_alpha")
"""Those of them that every version of PEFT writes."""


def admit_adapter(place: Path, expected: State, config: Mapping[str, Any]) -> State:
    """The tensors of a PEFT folder, as float32.

    Raises StudyError if it is none, or is not of the expected adapter's names, shapes and configuration, or not finite.

    Args:
        place: the folder.
        expected: tensors of the same adapter, by PEFT's exported names.
        config: PEFT's configuration of it.
    """
    try:
        state = {name: tensor.float() for name, tensor in load_state(place).items()}
        stated = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        found = {name: stated[name] for name in DECISIVE if name in NEEDED or name in stated}
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        raise StudyError(
            f"Expected a PEFT adapter (adapter_config.json, adapter_model.safetensors) in {place}, found none that can "
            "be read: name the folder that `save_pretrained` wrote."
        ) from None
    if reason := next(_faults(state, found, expected, config), None):
        raise StudyError(
            f"Expected an adapter of this study's model and lora settings in {place}, found {reason}: name another, or "
            "set model and lora as it was trained."
        )
    return state


def _faults(state: State, found: Mapping[str, Any], expected: State, config: Mapping[str, Any]) -> Iterator[str]:
    yield from other_config(found, {name: config[name] for name in found if name in config})
    yield from misshapen(state, expected)
    yield from (f"{name} that is not finite" for name in sorted(state) if not bool(torch.isfinite(state[name]).all()))
