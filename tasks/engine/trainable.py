"""Train parts of a base: tower and text model through LoRA, the projector in full; merge them when done."""

from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig

from tasks.engine.adapter import State, check_keys
from tasks.engine.base import Base
from tasks.engine.layers import Widened, add_lora, linear_layers


class Trainable:
    """A base of which some parts learn, until `merge` turns it back into an ordinary base.

    Args:
        base: it is changed in place.
        targets: for each side that learns (`tower`, `text`), the names of the linear layers that get LoRA.
        projector: whether the projector learns, with all its weights.
        r: LoRA's rank.
        alpha: LoRA's scaling numerator.
        dropout: dropout on LoRA's input in training.
        seed: seed for LoRA's initial weights.

    Raises StudyError if a target names no linear layer of its side.
    """

    def __init__(
        self,
        base: Base,
        targets: Mapping[str, Sequence[str]],
        projector: bool,
        *,
        r: int,
        alpha: int,
        dropout: float,
        seed: int,
    ) -> None:
        self.base = base
        names = [
            name
            for side, last in targets.items()
            for name in linear_layers(base.model, base.family, side, last, f"{side}_targets")
        ]
        torch.manual_seed(seed)
        config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
        self._peft = add_lora(base, config) if names else None
        self._projector = (
            Widened(base.model.get_submodule(base.family.projector), base.model.dtype) if projector else None
        )
        self._trainable = {name: each for name, each in base.model.named_parameters() if each.requires_grad}
        base.model.eval()

    def parameters(self) -> list[torch.nn.Parameter]:
        """All trainable parameters, float32."""
        return list(self._trainable.values())

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The same by their names in the model."""
        return dict(self._trainable)

    def read(self) -> State:
        """A copy of all trainable parameters."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._trainable.items()}

    @torch.no_grad()
    def switch(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace the present weights by a state from `read`."""
        check_keys(state, self._trainable)
        for name, tensor in self._trainable.items():
            tensor.copy_(state[name])

    def merge(self) -> None:
        """Merge LoRA into the base's weights, in the base's dtype, and freeze everything again."""
        if self._projector is not None:
            self._projector.undo()
        if self._peft is not None:
            self._peft.merge_and_unload()
        self.base.model.requires_grad_(False).eval()
