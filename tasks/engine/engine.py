"""The engine: a frozen base with one adapter, on which hospitals' weights are switched."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict

from tasks.engine.adapter import State, check_keys
from tasks.engine.base import Base
from tasks.engine.layers import Widened, add_lora, linear_layers


class Engine:
    """A base with one adapter, whose weights are replaced, never its modules.

    The adapter is what a federation trains: LoRA on the text model, and all of the projector where it learns too, as
    PEFT's `modules_to_save`.

    Args:
        base: the frozen base; it is wrapped in place.
        r: rank of the adapter.
        alpha: scaling numerator.
        dropout: dropout on the adapter's input while training.
        targets: names of the text model's linear layers that get an adapter.
        projector: whether the projector learns; image features are taken before it then (`Features.projected`).
    """

    def __init__(
        self, base: Base, r: int, alpha: int, dropout: float, targets: Sequence[str], projector: bool = False
    ) -> None:
        self.base = base
        self.config = LoraConfig(
            r=r,
            lora_alpha=alpha,
            lora_dropout=dropout,
            # The vision tower must stay frozen: its features are computed once and reused.
            target_modules=linear_layers(base.model, base.family, "text", targets, "lora.targets"),
            modules_to_save=[base.family.projector] if projector else None,
            task_type="CAUSAL_LM",
        )
        self.peft = add_lora(base, self.config)
        self.peft.eval()
        self._widened = self._widen() if projector else None
        # The adapter's own tensors by PEFT's exported names: what is written to them is what the model computes with.
        self._own: State = get_peft_model_state_dict(self.peft)
        self._projector = {name: tensor.clone() for name, tensor in self._own.items() if "lora_" not in name}

    def _widen(self) -> Widened:
        wrapper = self.base.model.get_submodule(self.base.family.projector)
        return Widened(wrapper.modules_to_save["default"], self.base.model.dtype)

    def remove(self) -> None:
        """Make an ordinary base of it again, as it was before."""
        if self._widened is not None:
            self.switch(self.initial_state(0))  # PEFT leaves the trained copy in the projector's place
            self._widened.undo()
        self.peft.unload()
        self.base.model.requires_grad_(False)

    def merge(self) -> Any:
        """The base's model with the adapter in its own weights; the engine is of no use afterwards."""
        if self._widened is not None:
            self._widened.undo()
        return self.peft.merge_and_unload()

    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's trainable parameters."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The same by PEFT's exported names."""
        names = {tensor.data_ptr(): name for name, tensor in self._own.items()}
        return {names[each.data_ptr()]: each for each in self.peft.parameters() if each.requires_grad}

    def read(self) -> State:
        """A copy of the adapter that is switched on."""
        return {name: tensor.detach().float().cpu().clone() for name, tensor in self._own.items()}

    @torch.no_grad()
    def switch(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put an adapter's weights in place of the present ones: a copy of its bytes, no module is touched.

        It is what PEFT's `set_peft_model_state_dict` does, without searching the whole model for the names each time.
        Raises StudyError where a tensor is missing, unexpected or of another shape.
        """
        check_keys(state, self._own)
        torch._foreach_copy_(list(self._own.values()), [state[name] for name in self._own])

    def initial_state(self, seed: int) -> State:
        """A fresh adapter: A uniform after Kaiming as in LoRA (arXiv 2106.09685), B zero, the projector as the base's.

        So the base's answers are unchanged.
        """
        generator = torch.Generator().manual_seed(seed)
        state = {}
        for name, tensor in sorted(self._own.items()):
            if "lora_A" in name:
                bound = (1.0 / tensor.shape[1]) ** 0.5
                state[name] = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator)
            elif name in self._projector:
                state[name] = self._projector[name].float().cpu().clone()
            else:
                state[name] = torch.zeros(tensor.shape)
        return state
