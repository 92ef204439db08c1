"""4-bit weights: QLoRA's NormalFloat (arXiv 2305.14314), through bitsandbytes."""

from typing import Any

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available

from tasks.errors import StudyError

BYTES_PER_WEIGHT = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""4 bits; 8 bits of scale for every 64 weights, and 32 for every 256 scales."""


def need_bitsandbytes() -> None:
    """Raise StudyError if bitsandbytes is not installed."""
    if not is_bitsandbytes_available():
        raise StudyError(
            "Setting model.quantisation is nf4, but bitsandbytes is not installed: "
            "install it with pip install '.[cuda]', or set model.quantisation to none."
        )


def blank_model(config: Any) -> Any:
    """The model of this configuration without storage: only names and shapes."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def text_linear(model: Any) -> dict[str, torch.nn.Linear]:
    """The text model's linear layers by full name: those that can get LoRA, and that `nf4` keeps in 4 bits."""
    return {
        name: module
        for name, module in model.named_modules()
        if "language_model" in name.split(".") and isinstance(module, torch.nn.Linear)
    }


def four_bits(config: Any, dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with quantised scales for the text model's linear layers, which compute in `dtype`.

    Tower, projector and vocabulary stay as they are: features are computed only once, so little would be gained.
    """
    others = [f"model.{name}" for name, _ in blank_model(config).model.named_children() if name != "language_model"]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[*others, "lm_head"],
    )
