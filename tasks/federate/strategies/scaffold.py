"""SCAFFOLD (Karimireddy et al., arXiv 1910.06378): control variates correct for what is peculiar to a hospital."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.strategies.fedavg import FedAvg
from tasks.federate.strategies.strategy import Need
from tasks.records.federation import CONTROL, Order
from tasks.settings import LocalRule, StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class Scaffold(FedAvg):
    """Federated averaging with a control variate at the server, and one at each hospital (`tasks/federate/control.py`).

    The server's is the mean of the hospitals'. Hospitals send how theirs changed, and add to their gradients what the
    server's is above their own.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"sum", "state"})

    def order(self, round_number: int, hospital: str) -> Order:
        """Train from the mean, with corrected gradients."""
        return Order(round_number, start="global", local=LocalRule(control=True))

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The weighted mean of each group; the server's control variate, 0 at first, moves by that of the changes.

        Weights are shares of the samples, where the paper has hospitals of equal size.
        Raises StudyError if an update has no samples.
        """
        from tasks.federate.state import ServerState

        groups = dict(super().aggregate(state, updates).groups)
        for group in [name for name in groups if name.endswith(CONTROL)]:
            before, change = state.groups.get(group, {}), groups[group]
            groups[group] = {name: change[name] + before[name] if before else change[name] for name in change}
        return ServerState(groups)


def strategy(settings: StrategySettings) -> Scaffold:
    """It has no settings."""
    return Scaffold()
