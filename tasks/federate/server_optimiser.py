"""What strategies with an optimiser at the server have in common (Reddi et al., arXiv 2003.00295)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.strategies.fedavg import FedAvg
from tasks.federate.strategies.strategy import Need

if TYPE_CHECKING:
    import torch

    from tasks.federate.state import ServerState, Update

    Step = Callable[[torch.Tensor, Sequence[torch.Tensor]], tuple[torch.Tensor, Sequence[torch.Tensor]]]


@dataclass(frozen=True)
class ServerOptimiser(FedAvg):
    """Hospitals' mean delta is to the server what a gradient is to an optimiser.

    The optimiser's moments are groups of the server's state, so that a resumed run ends in the same bytes.
    """

    step: "Step"
    """From the mean delta and the moments, in float64 and of one shape, to the server's step and the new moments."""
    moments: Mapping[str, float]
    """The moments that the step takes, in its order: the end of their group's name, and what they begin with."""
    needs: ClassVar[frozenset[Need]] = frozenset({"sum", "state"})

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Each group of tensors after the server's step, and the group of each of its moments.

        Raises StudyError if an update has no samples.
        """
        import torch

        from tasks.federate.means import mean_delta, shares
        from tasks.federate.state import ServerState

        weights = shares([update.samples for update in updates])
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for group in updates[0].parts:
            start, named = state.groups[group], {moment: f"{group}-{moment}" for moment in self.moments}
            made = groups[group] = {}
            for name, delta in mean_delta(start, [update.parts[group] for update in updates], weights).items():
                before = [
                    state.groups[named[moment]][name].double()
                    if named[moment] in state.groups
                    else torch.full_like(delta, value)
                    for moment, value in self.moments.items()
                ]
                step, after = self.step(delta, before)
                made[name] = (start[name].double() + step).float()
                for moment, tensor in zip(self.moments, after, strict=True):
                    groups.setdefault(named[moment], {})[name] = tensor.float()
        return ServerState(groups)
