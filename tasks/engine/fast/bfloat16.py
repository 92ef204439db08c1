"""Training of a base in bfloat16: LoRA's products in bfloat16 as the base's are, and attention in float32 on a CPU.

PEFT converts each layer's input to LoRA's float32 and multiplies there, which costs most where a CPU multiplies
bfloat16 many times faster than float32 (AVX512-BF16, AMX). `python -m benchmarks.bfloat16` measures both.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch.nn.functional import linear
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_trained_in_float32"


class BFloat16Linear(PeftLinear):
    """PEFT's layer; with one plain adapter that is switched on, its weights are rounded to bfloat16 for the products.

    The adapter itself stays in float32, and so do its gradients and steps: small steps are not lost.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`(..., in)` to `(..., out)`."""
        if x.dtype != torch.bfloat16 or not self._is_plain() or args or kwargs:
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        factors: tuple[Any, Any] = self.lora_A[name], self.lora_B[name]
        down, up = factors[0].weight.to(x.dtype), (factors[1].weight * self.scaling[name]).to(x.dtype)
        dropout: Any = self.lora_dropout[name]
        found: torch.Tensor = self.base_layer(x) + linear(linear(dropout(x), down), up)
        return found

    def _is_plain(self) -> bool:
        return len(self.active_adapters) == 1 and not (self.merged or self.disable_adapters or self.lora_variant)


def multiply_in_bfloat16(peft: torch.nn.Module) -> None:
    """Make LoRA's layers around frozen layers in bfloat16 multiply in bfloat16; others are left alone."""
    for module in peft.modules():
        if type(module) is PeftLinear and module.base_layer.weight.dtype == torch.bfloat16:
            module.__class__ = BFloat16Linear


def attend_in_float32(model: Any) -> None:
    """Make a text model's attention train in float32: torch 2.13 takes twice as long for bfloat16 on a CPU.

    A model that attends in a way of its own, as Gemma 2 with bounded scores, is left alone.
    """
    text = model.model.language_model
    if text.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    text.set_attn_implementation(ATTENTION)


def _attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """As transformers' own; the backward pass is what float32 speeds up."""
    if not any(each.requires_grad for each in (query, key, value)):
        return sdpa_attention_forward(module, query, key, value, *args, **kwargs)
    made, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), *args, **kwargs)
    return made.to(query.dtype), weights
