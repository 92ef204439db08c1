"""Dropout of LoRA's inputs on a CPU, with a fourth of the random bits that torch draws for each number.

Drawing is one after the other whatever the number of threads, so it was a tenth of a training step on two cores
(`python -m benchmarks.roofline`).
"""

from collections.abc import Sequence

import torch
from peft.tuners.lora import LoraLayer

STEPS = 2**16
"""A share is rounded to a multiple of 1 / STEPS."""


class Dropout(torch.nn.Dropout):
    """Torch's (Srivastava et al. 2014), whose masks are drawn cheaply on a CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape; each number is zero with the layer's probability, or larger so that the mean stays."""
        return dropped(x, self.p) if self.training else x


def dropped(x: torch.Tensor, share: float) -> torch.Tensor:
    """`x` with this share of its numbers set to zero, drawn from torch's generator, and the others scaled up."""
    if x.device.type != "cpu":
        return torch.nn.functional.dropout(x, share)
    return x * mask(x.shape, share).to(x.dtype)


def mask(shape: Sequence[int], share: float) -> torch.Tensor:
    """Zeros, and elsewhere the number that makes the mean of what is expected 1.

    Four numbers share one draw of 64 bits. The scale is that of the rounded share.
    """
    size = torch.Size(shape)
    bits = torch.empty(-(-size.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    levels = bits.view(torch.int16)[: size.numel()].view(size)
    zeros = round(share * STEPS)
    kept = torch.tensor(STEPS / max(STEPS - zeros, 1))
    return torch.where(levels >= zeros - STEPS // 2, kept, torch.zeros(()))


def drop_cheaply(peft: torch.nn.Module) -> None:
    """Make LoRA's layers draw dropout in this way."""
    for module in peft.modules():
        if isinstance(module, LoraLayer):
            for each in module.lora_dropout.values():
                if type(each) is torch.nn.Dropout:
                    each.__class__ = Dropout
