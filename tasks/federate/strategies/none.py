"""No federation: each hospital trains alone, and its tensors stay with it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tasks.errors import StudyError
from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class Alone:
    """Every hospital goes on from what it trained itself."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def order(self, round_number: int, hospital: str) -> Order:
        """Go on."""
        return Order(round_number, start="own")

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Nothing is kept.

        Raises StudyError where a hospital's training diverged, as no other hospital's can take its place.
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
