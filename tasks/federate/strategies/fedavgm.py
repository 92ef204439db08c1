"""FedAvgM (Hsu et al., arXiv 1909.06335): federated averaging with momentum on the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.federate.strategies.fedavg import FedAvg
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update

MOMENTUM = "-momentum"
"""Suffix of the group that holds the momentum of another group."""


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """Each round moves from the previous tensors towards the new mean, plus a share of the previous step."""

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
