"""Federated averaging (McMahan et al., arXiv 1602.05629): the sample-weighted mean of hospitals' tensors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.strategies.strategy import Need
from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class FedAvg:
    """Every hospital starts from the mean of the previous round."""

    needs: ClassVar[frozenset[Need]] = frozenset({"sum"})

    def order(self, round_number: int, hospital: str) -> Order:
        """Train from the mean."""
        return Order(round_number, start="global")

    def check_hospitals(self, count: int) -> None:
        """Any number will do."""

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The weighted mean of each group of tensors; the server keeps nothing else.

        Raises StudyError if an update has no samples.
        """
        from tasks.federate.means import weighted_mean
        from tasks.federate.state import ServerState

        samples = [update.samples for update in updates]
        return ServerState(
            {group: weighted_mean([update.parts[group] for update in updates], samples) for group in updates[0].parts}
        )


def strategy(settings: StrategySettings) -> FedAvg:
    """It has no settings."""
    return FedAvg()
