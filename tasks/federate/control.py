"""SCAFFOLD's control variates in local training (Karimireddy et al., arXiv 1910.06378).

A control variate is the mean of the gradients of one round, by tensor name: of a hospital, or of all of them. In the
paper's option II, a hospital's is `c_i - c + (x - y) / (K * learning rate)`. For plain gradient descent this is the
mean of its K gradients, as they were before the correction. For AdamW it is not: we take that mean for both.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from tasks.records.federation import CONTROL_FILE, HospitalRefs


class Controlled:
    """A gradient correction that adds the server's control variate less the hospital's own.

    Args:
        start: the tensors at the start of the round, by name.
        server: the server's control variate; empty for 0.
        own: the hospital's; empty for 0.
    """

    def __init__(
        self,
        start: Mapping[str, torch.Tensor],
        server: Mapping[str, torch.Tensor],
        own: Mapping[str, torch.Tensor],
    ) -> None:
        zeros = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in start.items()}
        self._own = {name: own[name].double() if own else zero for name, zero in zeros.items()}
        self._add = {name: (server[name] if server else zero) - self._own[name] for name, zero in zeros.items()}
        self._sums: dict[str, torch.Tensor] = zeros
        self._steps = 0

    @torch.no_grad()
    def __call__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Correct the gradients of one step, and remember what they were."""
        self._steps += 1
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                self._sums[name] = self._sums[name].to(parameter.device) + parameter.grad.double()
                parameter.grad.add_(self._add[name].to(parameter.device))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What it remembers of the round's gradients."""
        return {"steps": torch.tensor(self._steps)} | {f"sum {name}": total for name, total in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what was remembered."""
        self._steps = int(state["steps"])
        self._sums = {name: state[f"sum {name}"] for name in self._sums}

    def change(self) -> dict[str, torch.Tensor]:
        """What the hospital's control variate has changed by: the mean of the round's gradients, less what it was."""
        return {
            name: (total.cpu() / max(self._steps, 1) - self._own[name]).float() for name, total in self._sums.items()
        }


def controlled(hospital: HospitalRefs, start: Mapping[str, torch.Tensor]) -> Controlled:
    """The correction of a hospital's next round; the server's control variate lies beside the adapter."""
    own = hospital.control.folder if hospital.control else None
    return Controlled(start, _read(hospital.adapter.folder), _read(own))


def after(before: Path | None, update: Path) -> dict[str, torch.Tensor]:
    """A hospital's control variate after a round, from the folders of the former one and of the hospital's update."""
    own, change = _read(before), _read(update)
    return {name: own[name] + step if own else step for name, step in change.items()}


def _read(folder: Path | None) -> dict[str, torch.Tensor]:
    """Empty if there is none yet."""
    return load_file(folder / CONTROL_FILE) if folder and (folder / CONTROL_FILE).exists() else {}
