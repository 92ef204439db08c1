"""FedAvgM (Hsu et al., arXiv 1909.06335): the server's steps have momentum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.federate.strategies.fedavg import FedAvg
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update

MOMENTUM = "-momentum"
"""Behind the name of a group: the group with its momentum."""


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """The step from one round's tensors to the mean of the next, with a share of the step before added to it."""

    momentum: float

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Each group and its momentum: `v = momentum * v + (mean - w)`, `w = w + v`, computed in float64."""
        from tasks.federate.state import ServerState

        groups = {}
        for group, mean in super().aggregate(state, updates).groups.items():
            before, last = state.groups[group], state.groups.get(group + MOMENTUM, {})
            steps = {name: tensor.double() - before[name].double() for name, tensor in mean.items()}
            steps = {
                name: step + self.momentum * last[name].double() if name in last else step
                for name, step in steps.items()
            }
            groups[group] = {name: (before[name].double() + step).float() for name, step in steps.items()}
            groups[group + MOMENTUM] = {name: step.float() for name, step in steps.items()}
        return ServerState(groups)


def strategy(settings: StrategySettings) -> FedAvgM:
    """With `federation.server_momentum`."""
    return FedAvgM(settings.server_momentum)
