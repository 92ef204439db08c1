"""How far a training has come, and how it goes on from a checkpoint to the very bytes that it would have had."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from tasks.engine.adapter import State
from tasks.store.checkpoints import Checkpoint, logger
from tasks.text.wording import counted

FILE = "training.safetensors"
Step = TypeVar("Step")


@runtime_checkable
class Remembers(Protocol):
    """What changes from step to step beside the weights, as a gradient correction that sums; by torch's names."""

    def state_dict(self) -> State:
        """All that it remembers."""

    def load_state_dict(self, state: State) -> None:
        """Remember this instead."""


class Progress:
    """The steps that a training has taken, and all that the next one follows from.

    That is the weights, the optimiser's moments, torch's random state, from which dropout is drawn, and what else
    `Remembers`. The order of the examples is not in it: it follows from the seed, and is drawn anew.

    Args:
        title: what trains, for the log and beside the progress bar.
        parameters: by name, what the optimiser changes, in its order, as the first step finds it.
        optimiser: with no step taken, as what torch's seed was set for.
        checkpoint: where to go on from, and to save to from time to time; None keeps nothing.
        others: what may remember something; what does not is passed over.
    """

    def __init__(
        self,
        title: str,
        parameters: Mapping[str, torch.nn.Parameter],
        optimiser: torch.optim.Optimizer,
        checkpoint: Checkpoint | None,
        *others: object,
    ) -> None:
        self.taken = 0
        """Steps of the present plan."""
        self.loss, self.answered = 0.0, 0
        """The loss summed over the answer tokens of these steps, and their number."""
        self._title, self._parameters, self._optimiser, self._checkpoint = title, parameters, optimiser, checkpoint
        self._others = [each for each in others if isinstance(each, Remembers)]
        self._devices = sorted({each.device for each in parameters.values() if each.device.type == "cuda"}, key=str)
        found = checkpoint and checkpoint.load(title, lambda folder: load_file(folder / FILE))
        self._goes_on = bool(found)
        if found:
            self._put({name: tensor.clone() for name, tensor in found.items()})

    def left(self, plan: Sequence[Step], part: str = "") -> Iterator[Step]:
        """The steps of a plan that are not yet taken, beside a progress bar. When the next is asked for, one is taken.

        `part` says which plan of the training it is.
        """
        title = f"{self._title} {part}".rstrip()
        if self._goes_on and self._checkpoint:
            saved = _ago(self._checkpoint.age)
            logger.info("%s: goes on from step %d of %d, saved %s", title, self.taken, len(plan), saved)
            self._goes_on = False
        rest = plan[self.taken :]
        for step in tqdm(rest, title, len(plan), initial=self.taken, unit="step", leave=False, disable=None):
            yield step
            self.taken += 1
            if self._checkpoint and self._checkpoint.is_due():
                self._checkpoint.save(self._write)

    def count(self, loss: float, answered: int) -> None:
        """Count the loss of a step, summed over its answer tokens, and their number."""
        self.loss, self.answered = self.loss + loss, self.answered + answered

    @property
    def mean_loss(self) -> float:
        """Mean per answer token over all steps; 0 without any."""
        return self.loss / max(self.answered, 1)

    def begin_plan(self) -> None:
        """Count from nothing, for the next plan."""
        self.taken, self.loss, self.answered = 0, 0.0, 0

    def _write(self, folder: Path) -> None:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self._read().items()}, folder / FILE)

    def _read(self) -> State:
        """All that the next step follows from; each name begins with the part that it is of."""
        state: State = {"counts": torch.tensor([self.taken, self.loss, self.answered], dtype=torch.float64)}
        state["random/cpu"] = torch.get_rng_state()
        state |= {f"random/{device}": torch.cuda.get_rng_state(device) for device in self._devices}
        for name, parameter in self._parameters.items():
            state[f"weights/{name}"] = parameter
            state |= {f"moments/{name}/{kind}": each for kind, each in self._optimiser.state.get(parameter, {}).items()}
        for number, each in enumerate(self._others):
            state |= {f"others/{number}/{name}": tensor for name, tensor in each.state_dict().items()}
        return state

    @torch.no_grad()
    def _put(self, state: State) -> None:
        taken, self.loss, answered = state["counts"].tolist()
        self.taken, self.answered = int(taken), int(answered)
        torch.set_rng_state(state["random/cpu"])
        for device in self._devices:
            torch.cuda.set_rng_state(state[f"random/{device}"], device)
        for name, parameter in self._parameters.items():
            parameter.copy_(state[f"weights/{name}"])
        moments = _below(state, "moments")
        numbered: dict[int, Any] = {n: moments[name] for n, name in enumerate(self._parameters) if name in moments}
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": numbered})
        others = _below(state, "others")
        for number, each in enumerate(self._others):
            each.load_state_dict(others[str(number)])


def _below(state: State, part: str) -> dict[str, State]:
    """The tensors `part/WHICH/NAME` by which and name."""
    found: dict[str, State] = defaultdict(dict)
    for name, tensor in state.items():
        first, *which = name.split("/")
        if first == part:
            found[which[0]][which[1]] = tensor
    return found


def _ago(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{counted(minutes, 'minutes')} ago" if minutes else "less than a minute ago"
