"""The interface of a strategy, and its lookup by name."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class Strategy(Protocol):
    """A federation's orders to hospitals and its aggregation, both pure: the same inputs give the same bytes.

    Each strategy is one module, whose function `strategy` creates it from the settings. Giving orders needs no torch,
    so a strategy imports torch only where it aggregates.
    """

    needs: ClassVar[frozenset[str]]
    """What the server needs of the hospitals' tensors: their weighted `sum`, single `updates`, or nothing."""

    def order(self, round_number: int, hospital: str) -> Order:
        """The order to one hospital for one round."""

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The server's next state, from its current state and the updates of a round.

        Raises StudyError if the updates cannot be aggregated.
        """


def choose(settings: StrategySettings) -> Strategy:
    """The strategy that the settings name."""
    module = importlib.import_module(f"tasks.federate.strategies.{settings.aggregation}")
    return cast(Strategy, module.strategy(settings))
