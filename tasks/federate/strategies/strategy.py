"""What a strategy is, and how it is found by its name."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class Strategy(Protocol):
    """Orders and aggregation of a federation, both pure: the same bytes for the same inputs.

    Each is in a module of its own, whose function `strategy` makes it from the settings. Orders are given without
    torch, so it is imported where one computes.
    """

    needs: ClassVar[frozenset[str]]
    """What the server has to learn of the hospitals' tensors: their weighted `sum`, or nothing."""

    def order(self, round_number: int, hospital: str) -> Order:
        """What a hospital is to do in a round."""

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The server's next state, from its present one and the updates of a round.

        Raises StudyError where the updates allow none.
        """


def choose(settings: StrategySettings) -> Strategy:
    """The strategy that the settings name."""
    module = importlib.import_module(f"tasks.federate.strategies.{settings.aggregation}")
    return cast(Strategy, module.strategy(settings))
