"""Mean of factors (FedIT, arXiv 2305.05644): what the strategy makes of A and of B, each by itself. Approximate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.strategies.strategy import Need, Strategy
from tasks.records.federation import Order

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


@dataclass(frozen=True)
class Factors:
    """A strategy as it is. Other rules change its orders or its means."""

    strategy: Strategy
    exact: ClassVar[bool] = False
    """Whether the next round starts from the mean of the products B A, up to float32."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the strategy needs."""
        return self.strategy.needs

    def check_hospitals(self, count: int) -> None:
        """As the strategy does."""
        self.strategy.check_hospitals(count)

    def order(self, round_number: int, hospital: str) -> Order:
        """The strategy's order."""
        return self.strategy.order(round_number, hospital)

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The strategy's next state of the tensors that hospitals send: one factor may stay where it is."""
        from tasks.federate.state import ServerState

        whole, sent = state.groups.get("adapter", {}), updates[0].parts.get("adapter", {})
        part = {name: tensor for name, tensor in whole.items() if name in sent}
        return self.strategy.aggregate(ServerState({**state.groups, "adapter": part}), updates)


def around(strategy: Strategy) -> Factors:
    """The rule around a strategy."""
    return Factors(strategy)
