"""The engine: a frozen base with one adapter, whose weights are switched from hospital to hospital."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict

from tasks.engine.adapter import State, check_keys
from tasks.engine.base import Base
from tasks.engine.layers import Widened, add_lora, linear_layers
from tasks.engine.probe import Probe
from tasks.engine.residual import Residual, parted

ADAPTER = "default"
"""PEFT's name of the one adapter."""


class Engine:
    """A base with one adapter. Switching adapters replaces its weights, never its modules.

    The adapter is what a federation trains: LoRA on the text model, and optionally LoRA on the vision tower and the
    whole projector, through PEFT's `modules_to_save`.

    Args:
        base: the frozen base; it is wrapped in place.
        r: LoRA's rank.
        alpha: LoRA's scaling numerator.
        dropout: dropout on LoRA's input in training.
        targets: names of the text model's linear layers that get LoRA.
        projector: whether the projector learns. Cached features must then come from before it (`Features.projected`).
        tower_targets: names of the vision tower's linear layers that get LoRA. With any, cached features are not what
            the adapter sees: take `Pixels`.

    Raises StudyError if a target names no linear layer of its part of the model.
    """

    def __init__(
        self,
        base: Base,
        r: int,
        alpha: int,
        dropout: float,
        targets: Sequence[str],
        projector: bool = False,
        tower_targets: Sequence[str] = (),
    ) -> None:
        self.base = base
        self.tower_learns = bool(tower_targets)
        self.config = LoraConfig(
            r=r,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=[
                *linear_layers(base.model, base.family, "text", targets, "lora.targets"),
                *linear_layers(base.model, base.family, "tower", tower_targets, "lora.tower_targets"),
            ],
            modules_to_save=[base.family.projector] if projector else None,
            task_type="CAUSAL_LM",
        )
        self.peft = add_lora(base, self.config)
        self.peft.eval()
        self._widened = self._widen() if projector else None
        self._residual = Residual(self.peft)
        # The adapter's tensors by PEFT's exported names. The model computes with these very tensors.
        self._tensors: State = get_peft_model_state_dict(self.peft)
        self._probe = Probe(self.peft, self._tensors, ADAPTER)
        self._projector = {name: tensor.clone() for name, tensor in self._tensors.items() if "lora_" not in name}

    def _widen(self) -> Widened:
        wrapper = self.base.model.get_submodule(self.base.family.projector)
        return Widened(wrapper.modules_to_save[ADAPTER], self.base.model.dtype)

    def remove(self) -> None:
        """Restore the base to what it was before."""
        self._residual.put({})
        if self._widened is not None:
            self.switch(self.initial_state(0))  # PEFT leaves the trained copy in the projector's place
            self._widened.undo()
        self.peft.unload()
        self.base.model.requires_grad_(False)

    def merge(self) -> Any:
        """Merge the adapter into the base's weights and return the model; the engine cannot be used afterwards."""
        if self._widened is not None:
            self._widened.undo()
        self._residual.merge()
        return self.peft.merge_and_unload()

    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's trainable parameters."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapter's trainable parameters by PEFT's exported names."""
        names = {tensor.data_ptr(): name for name, tensor in self._tensors.items()}
        return {names[each.data_ptr()]: each for each in self.peft.parameters() if each.requires_grad}

    def read(self) -> State:
        """A copy of the adapter that is switched on, without a residual."""
        return {name: tensor.detach().float().cpu().clone() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def switch(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy an adapter's weights over the present ones; no module changes.

        This does what PEFT's `set_peft_model_state_dict` does, without searching the whole model for names each time.
        A residual among the tensors is added beside the adapter until the next switch.
        Raises StudyError if a tensor is missing, unexpected or of another shape, or if the model does not compute with
        the adapter afterwards.
        """
        state, residual = parted(state)
        check_keys(state, self._tensors)
        self._residual.put(residual)
        torch._foreach_copy_(list(self._tensors.values()), [state[name] for name in self._tensors])
        self._probe.check()

    def initial_state(self, seed: int) -> State:
        """A fresh adapter, with which the base's answers are unchanged.

        A is Kaiming uniform as in LoRA (arXiv 2106.09685), B is zero, and the projector is the base's.
        """
        generator = torch.Generator().manual_seed(seed)
        state = {}
        for name, tensor in sorted(self._tensors.items()):
            if "lora_A" in name:
                bound = (1.0 / tensor.shape[1]) ** 0.5
                state[name] = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator)
            elif name in self._projector:
                state[name] = self._projector[name].float().cpu().clone()
            else:
                state[name] = torch.zeros(tensor.shape)
        return state
