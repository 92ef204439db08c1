"""What robust strategies have in common: they see each hospital's delta, and every hospital counts alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tasks.errors import StudyError
from tasks.federate.distances import Deltas, Numbers, mixed
from tasks.federate.strategies.strategy import Need
from tasks.records.federation import Order
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, State, Update

Rule = Callable[[Deltas, int], Numbers]
"""From deltas `(n, d)` and the number of bad hospitals among them to one delta `(d,)`."""
BLOCK = 2**23
"""Numbers in memory at a time of all hospitals' deltas: 64 MB, and a rule makes a few copies."""


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
        from tasks.engine.deltas import moved
        from tasks.federate.state import ServerState

        tolerated = max((f for f in range(self.settings.byzantine + 1) if self.least(f) <= len(updates)), default=0)
        groups = {}
        for group in updates[0].parts:
            start = state.groups[group]
            deltas = deltas_of([update.parts[group] for update in updates], start)
            if self.settings.pre_aggregation == "nnm":
                deltas = mixed(deltas, tolerated)
            groups[group] = moved(start, self.rule(deltas, tolerated))
        return ServerState(groups)


def majority(byzantine: int) -> int:
    """The smallest number of hospitals in which good ones are the majority: 2f + 1."""
    return 2 * byzantine + 1


def deltas_of(states: "Sequence[State]", start: "State") -> Deltas:
    """The steps from a start to each state, tensors in the order of their names."""
    return Deltas(len(states), partial(_blocks, states, start))


def _blocks(states: "Sequence[State]", start: "State") -> Iterator[Numbers]:
    width = max(BLOCK // len(states), 1)
    for name in sorted(start):
        for part in (slice(first, first + width) for first in range(0, start[name].numel(), width)):
            begin = start[name].flatten()[part].double()
            block = np.empty((len(states), len(begin)))
            for row, state in zip(block, states, strict=True):
                row[:] = state[name].flatten()[part].double() - begin
            yield block
