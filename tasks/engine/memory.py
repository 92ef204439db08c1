"""How much memory a base needs, estimated from its configuration before any weight is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.engine.families.registry import PRESETS
from tasks.engine.fast.quantise import BYTES_PER_WEIGHT, blank_model, text_linear
from tasks.errors import StudyError

TOKENS = 2048
"""Tokens of a prompt with a few images: the least that a training step holds at once."""
RANK = 16
"""Assumed rank of the adapter, on every linear layer of the text model."""
MARGIN = 1.2
"""Factor for allocators and libraries; for a preset, a second one covers its adapter and training step."""


@dataclass(frozen=True)
class Need:
    """Bytes needed to train an adapter on a base, one prompt at a time."""

    weights: int
    adapter: int
    """LoRA weights with their gradients and AdamW's two moments, all float32."""
    activations: int
    """A rough upper bound."""

    @property
    def total(self) -> int:
        """The sum of all three, with a margin."""
        return int(MARGIN * (self.weights + self.adapter + self.activations))


def estimate(config: Any, dtype: torch.dtype, is_quantised: bool = False) -> Need:
    """The memory that a model needs, with weights in the given dtype; with `is_quantised`, text layers in 4 bits.

    Weights and adapter are counted exactly, on a model without storage. Activations follow Korthikanti et al.
    (arXiv 2205.05198): at 16 bits, 34 bytes per token, layer and hidden unit, without attention scores.
    """
    model = blank_model(config)
    text = config.get_text_config()
    linear = text_linear(model).values()
    added = sum(RANK * (module.in_features + module.out_features) for module in linear)
    small = sum(module.weight.numel() for module in linear) if is_quantised else 0
    return Need(
        weights=int(
            (sum(parameter.numel() for parameter in model.parameters()) - small) * dtype.itemsize
            + small * BYTES_PER_WEIGHT
        ),
        adapter=added * 4 * 4,
        activations=17 * dtype.itemsize * TOKENS * text.hidden_size * text.num_hidden_layers,
    )


def free_bytes(device: str) -> int | None:
    """Free memory on `cpu` or `cuda`, in bytes; None if the system does not report it."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def check_memory(config: Any, dtype: torch.dtype, device: str, place: str, is_quantised: bool = False) -> None:
    """Raise StudyError if the device has too little free memory for a model of this configuration."""
    free = free_bytes(device)
    need = estimate(config, dtype, is_quantised)
    if free is None or need.total <= free:
        return
    smaller = not is_quantised and estimate(config, dtype, is_quantised=True).total <= free
    raise StudyError(
        f"Expected at least {_gigabytes(need.total)} of free memory on {device} to train {place} (weights "
        f"{_gigabytes(need.weights)}, adapter {_gigabytes(need.adapter)}, one prompt {_gigabytes(need.activations)}), "
        f"found {_gigabytes(free)}: free some, {'set model.quantisation to nf4, ' * smaller}"
        f"or set model.name to {_what_fits(free, dtype)}."
    )


def _what_fits(free: int, dtype: torch.dtype) -> str:
    """The presets that fit, largest first."""
    sizes = {name: MARGIN**2 * 1e9 * preset.parameters * dtype.itemsize for name, preset in PRESETS.items()}
    names = [name for name in sorted(sizes, key=lambda name: -sizes[name]) if sizes[name] <= free]
    return f"{', '.join(names)} or embedded, which fit" if names else "embedded, which fits"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
