"""FFA-LoRA (arXiv 2403.12313): A is drawn once and never trained, B is averaged. Exact, and half the traffic."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from tasks.federate.lora_mean.factors import Factors
from tasks.federate.strategies.strategy import Strategy
from tasks.records.federation import Order

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class OneFactor(Factors):
    """Hospitals train and send one factor of each layer; the other one is the server's, the same for all."""

    exact: ClassVar[bool] = True

    def frozen(self, round_number: int) -> Literal["A", "B"]:
        """The factor that stays as it is in a round."""
        return "A"

    def order(self, round_number: int, hospital: str) -> Order:
        """The strategy's order, with one factor frozen."""
        order = super().order(round_number, hospital)
        return replace(order, local=order.local.model_copy(update={"frozen": self.frozen(round_number)}))

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """The strategy's next state of what was sent; the frozen factor as it was."""
        from tasks.federate.state import ServerState

        kept = super().aggregate(state, updates).groups
        return ServerState({**kept, "adapter": {**state.groups["adapter"], **kept["adapter"]}})


def around(strategy: Strategy) -> OneFactor:
    """The rule around a strategy."""
    return OneFactor(strategy)
