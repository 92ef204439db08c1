"""Adapter states: a hospital's LoRA weights as named tensors in memory, and as the files of a PEFT folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors.torch import load_file, save

from tasks.engine.residual import MARK, parted
from tasks.errors import StudyError
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, RESIDUAL, group_file

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


def adapter_files(state: State, config: PeftConfig, base: str, rank: int | None = None) -> dict[str, bytes]:
    """The files of a PEFT adapter folder, as `PeftModel.from_pretrained` reads it.

    `base` is the model's name in the settings. A path on this machine would change the files' digest. `rank` is that of
    the tensors, where it is another one than the configuration's; both scale them alike.
    """
    settings = config.to_dict() | {"inference_mode": True, "base_model_name_or_path": base}
    if rank:
        settings |= {"r": rank, "lora_alpha": settings["lora_alpha"] * rank / settings["r"]}
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
    """The tensors of a PEFT adapter folder, and of a residual beside it, whose names have `.residual_` for `.lora_`."""
    residual = folder / group_file(RESIDUAL)
    return beside_residual(load_file(folder / WEIGHTS), load_file(residual) if residual.exists() else {})


def beside_residual(adapter: Mapping[str, torch.Tensor], residual: Mapping[str, torch.Tensor]) -> State:
    """The state of an adapter and its residual, as `load_state` names their tensors."""
    return {**adapter, **{name.replace(".lora_", MARK): tensor for name, tensor in residual.items()}}


def as_one(state: State, config: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
    """An adapter and its residual as one adapter of a larger rank, and its PEFT configuration.

    All layers get the same rank, that of the widest residual and the adapter together; others are padded with zeros.
    """
    lora, residual = parted(state)
    if not residual:
        return lora, dict(config)
    wide = max(tensor.shape[0] for name, tensor in residual.items() if f"{MARK}A." in name)
    joined = dict(lora)
    for name in (name for name in lora if ".lora_" in name):
        rows = 0 if ".lora_A." in name else 1
        other = residual.get(name.replace(".lora_", MARK))
        parts = [lora[name]] if other is None else [lora[name], other]
        missing = config["r"] + wide - sum(part.shape[rows] for part in parts)
        shape = [missing if axis == rows else size for axis, size in enumerate(lora[name].shape)]
        joined[name] = torch.cat([*parts, torch.zeros(shape)], dim=rows)
    rank = config["r"] + wide
    return joined, dict(config) | {"r": rank, "lora_alpha": config["lora_alpha"] * rank / config["r"]}
