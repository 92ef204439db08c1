"""Scalings of LoRA: a layer changes by `B A` times alpha / r, so products of unlike scalings do not add up."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.errors import StudyError
from tasks.federate.lora_mean.products import B
from tasks.federate.state import Changed, Update

KINDS = {"use_dora": "DoRA", "rank_pattern": "a rank of its own in some layers", "alpha_pattern": "an alpha of its own"}
"""What PEFT's configuration may name that no mean of products is defined for here."""


def scaling_of(config: Mapping[str, Any]) -> float:
    """alpha / r of a PEFT configuration, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732).

    Raises StudyError for DoRA, and for patterns of ranks or alphas.
    """
    for name, what in KINDS.items():
        if config.get(name):
            raise StudyError(f"Expected plain LoRA in every update, found {what} ({name}): train without it.")
    return float(config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]))


def folded(update: Update, scaling: float, wanted: float) -> Update:
    """An update with its scaling folded into B, so that it means the same with the wanted one."""
    if scaling == wanted:
        return update
    factor = scaling / wanted
    adapter = Changed(update.parts["adapter"], lambda name, tensor: tensor * factor if name.endswith(B) else tensor)
    return replace(update, parts={**update.parts, "adapter": adapter})


def alike(update: Update, wanted: Mapping[str, Any]) -> Update:
    """An update with the scaling of the wanted PEFT configuration folded into B, and its configuration said so.

    One of another kind than plain LoRA stays as it is, for the door to turn away.
    """
    config = update.config
    if config is None or any(config.get(name) for name in KINDS) or not _has_scaling(config):
        return update
    same = {name: wanted.get(name) for name in ("lora_alpha", "use_rslora")}
    return replace(folded(update, scaling_of(config), scaling_of(wanted)), config={**config, **same})


def _has_scaling(config: Mapping[str, Any]) -> bool:
    """Whether a configuration, which a hospital may have made up, states a rank and an alpha."""
    numbers = (config.get("r"), config.get("lora_alpha"))
    return all(isinstance(each, int | float) and each > 0 for each in numbers)
