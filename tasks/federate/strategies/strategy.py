"""The interface of a strategy, and its lookup by name."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, cast

from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update

Need = Literal["sum", "updates", "counts", "state"]
"""What the server must see or keep: the weighted `sum` of hospitals' tensors, single `updates`, more `counts` of each
hospital than its samples, tensors of its own between rounds (`state`). Secure aggregation hides single updates."""


class Strategy(Protocol):
    """A federation's orders to hospitals and its aggregation, both pure: the same inputs give the same bytes.

    Each strategy is one module, whose function `strategy` creates it from the settings. Giving orders needs no torch,
    so a strategy imports torch only where it aggregates.
    """

    @property
    def needs(self) -> frozenset[Need]:
        """Empty if the server gets no tensors."""

    def order(self, round_number: int, hospital: str) -> Order:
        """The order to one hospital for one round."""

    def check_hospitals(self, count: int) -> None:
        """Raises StudyError if the strategy does not work with so few hospitals."""

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The server's next state, from its current state and the updates of a round.

        Raises StudyError if the updates cannot be aggregated.
        """


def choose(settings: StrategySettings) -> Strategy:
    """The strategy that the settings name.

    Raises StudyError if it cannot work with its settings.
    """
    module = importlib.import_module(f"tasks.federate.strategies.{settings.module}")
    return cast(Strategy, module.strategy(settings))
