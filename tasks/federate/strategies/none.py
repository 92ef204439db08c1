"""No federation: each hospital trains alone, and its tensors stay at the hospital."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tasks.errors import StudyError
from tasks.federate.strategies.strategy import Need
from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class Alone:
    """Every hospital continues from its last trained tensors."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def order(self, round_number: int, hospital: str) -> Order:
        """Continue from the hospital's last tensors."""
        return Order(round_number, start="own")

    def check_hospitals(self, count: int) -> None:
        """Any number will do."""

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Returns an empty state: the server keeps nothing.

        Raises StudyError if a hospital's training diverged, since no other hospital's update can replace it.
        """
        from tasks.federate.state import ServerState

        if diverged := [update for update in updates if not math.isfinite(update.loss)]:
            raise StudyError(
                f"Expected a finite training loss of round {diverged[0].base_round + 1} at every hospital, found none "
                f"at {diverged[0].hospital}: lower federation.learning_rate."
            )
        return ServerState({})


def strategy(settings: StrategySettings) -> Alone:
    """It has no settings."""
    return Alone()
