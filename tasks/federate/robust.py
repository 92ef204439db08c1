"""What robust strategies have in common: they see each hospital's delta, and every hospital counts alike.

Deltas are in float64, from the round's global tensors: `(n, d)`, all tensors of a hospital in one row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tasks.errors import StudyError
from tasks.federate.distances import Deltas, mixed
from tasks.federate.strategies.strategy import Need
from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update

Rule = Callable[[Deltas, int], Deltas]
"""From deltas `(n, d)` and the number of bad hospitals among them to one delta `(d,)`. It leaves its input as it is."""


@dataclass(frozen=True)
class Robust:
    """Every hospital starts from the global tensors, which move by what a rule makes of the hospitals' deltas.

    Sample counts are not used: a hospital could claim any.
    """

    rule: Rule
    least: Callable[[int], int]
    """The smallest number of hospitals with which the rule tolerates so many bad ones: its breakdown point."""
    settings: StrategySettings
    needs: ClassVar[frozenset[Need]] = frozenset({"updates"})

    def order(self, round_number: int, hospital: str) -> Order:
        """Train from the global tensors."""
        return Order(round_number, start="global")

    def check_hospitals(self, count: int) -> None:
        """Raises StudyError if so few hospitals cannot outvote `federation.byzantine` bad ones under this rule."""
        bad, name = self.settings.byzantine, self.settings.strategy
        if count < self.least(bad):
            possible = max((f for f in range(1, bad) if self.least(f) <= count), default=None)
            lower = "" if possible is None else f", federation.byzantine={possible},"
            raise StudyError(
                f"Expected at least {self.least(bad)} hospitals for federation.strategy={name} with "
                f"federation.byzantine={bad}, found {count}: take more hospitals{lower} or another strategy."
            )

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Each group of tensors, moved by the rule's delta.

        Where the door has turned hospitals away, the rule tolerates as many bad ones as the rest allows. Those turned
        away were bad ones too, so that no more than this are left.
        """
        from tasks.engine.deltas import delta, moved
        from tasks.federate.state import ServerState

        tolerated = max((f for f in range(self.settings.byzantine + 1) if self.least(f) <= len(updates)), default=0)
        groups = {}
        for group in updates[0].parts:
            start = state.groups[group]
            deltas = np.stack([delta(update.parts[group], start) for update in updates])
            if self.settings.pre_aggregation == "nnm":
                deltas = mixed(deltas, tolerated)
            groups[group] = moved(start, self.rule(deltas, tolerated))
        return ServerState(groups)


def majority(byzantine: int) -> int:
    """The smallest number of hospitals in which good ones are the majority: 2f + 1."""
    return 2 * byzantine + 1
