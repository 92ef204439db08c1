"""Adapter states: a hospital's LoRA weights as named tensors in memory, and as the files of a PEFT folder."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftConfig
from safetensors.torch import load_file, save

from tasks.errors import StudyError
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE

State = dict[str, torch.Tensor]
"""Adapter tensors by PEFT's exported names, float32 on the CPU."""

WEIGHTS = ADAPTER_FILE
CONFIG = CONFIG_FILE


def check_keys(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Raise StudyError unless the state has the names and shapes of the expected adapter."""
    if state.keys() != expected.keys():
        missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        raise StudyError(
            f"Expected the {len(expected)} tensors of this adapter, found a state with {len(missing)} missing "
            f"({_first(missing)}) and {len(unexpected)} unexpected ({_first(unexpected)}): "
            "it belongs to another model or another lora setting."
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise StudyError(
                f"Expected {name} of shape {tuple(tensor.shape)}, found {tuple(state[name].shape)}: "
                "the adapter has another rank or belongs to another model."
            )


def _first(names: list[str]) -> str:
    return f"first {names[0]}" if names else "none"


def adapter_files(state: State, config: PeftConfig, base: str) -> dict[str, bytes]:
    """The files of a PEFT adapter folder, as `PeftModel.from_pretrained` reads it.

    `base` is the model's name in the settings. A path on this machine would change the files' digest.
    """
    settings = config.to_dict() | {"inference_mode": True, "base_model_name_or_path": base}
    text = json.dumps(_plain(settings), indent=2, sort_keys=True)
    return {WEIGHTS: save(dict(sorted(state.items())), {"format": "pt"}), CONFIG: text.encode()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def load_state(folder: Path) -> State:
    """The tensors of a PEFT adapter folder."""
    return load_file(folder / WEIGHTS)
