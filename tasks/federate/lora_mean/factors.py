"""Mean of factors (FedIT, arXiv 2305.05644): what the strategy makes of A and of B, each by itself. Approximate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.strategies.strategy import Strategy
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
    def needs(self) -> frozenset[str]:
        """What the strategy needs."""
        return self.strategy.needs

    def order(self, round_number: int, hospital: str) -> Order:
        """The strategy's order."""
        return self.strategy.order(round_number, hospital)

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The strategy's next state."""
        return self.strategy.aggregate(state, updates)


def around(strategy: Strategy) -> Factors:
    """The rule around a strategy."""
    return Factors(strategy)
