"""Linear layers in float32 on a CPU, computed by oneDNN where that is faster.

By default, torch computes these products with MKL, which does not use AVX-512 on processors of other makers than Intel.
oneDNN, which also comes with torch, uses it: on AMD processors, the same product takes half the time or less. On
Intel's own, MKL is the faster one (docs/benchmarks.md). Only rounding differs.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional


class _Product(torch.autograd.Function):
    """`x @ weight.T + bias` with `x` of `(..., in)` and a frozen weight of `(out, in)`."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        context.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = context.saved_tensors
        return _product(gradients[0], weight.t(), None), None, None


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The operation that torch's compiler uses for a linear layer on a CPU (torch 2.13)."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


class Linear(torch.nn.Linear):
    """A linear layer on oneDNN; with trained weights, or weights that are not float32 on a CPU, it is torch's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(..., in)` to `(..., out)`."""
        weight, bias = self.weight, self.bias
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trained or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
            return functional.linear(x, weight, bias)
        found: torch.Tensor = _Product.apply(x, weight, bias)
        return found


def use_the_faster(model: torch.nn.Module, processors: Path = Path("/proc/cpuinfo")) -> None:
    """Make a model's linear layers use oneDNN, except where Linux says that the processor is Intel's."""
    intel = processors.is_file() and "GenuineIntel" in processors.read_text(encoding="utf-8", errors="replace")
    if not (intel and torch.backends.mkl.is_available()):
        use_onednn(model)


def use_onednn(model: torch.nn.Module) -> None:
    """Make a model's linear layers use oneDNN if torch was built with it; nothing else about them changes."""
    if torch.backends.mkldnn.is_available():
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.__class__ = Linear
