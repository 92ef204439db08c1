"""RoLoRA (arXiv 2502.01755): B is trained and averaged in odd rounds, A in even ones. Exact, and half the traffic."""

from typing import Literal

from tasks.federate.lora_mean.freeze_a import OneFactor
from tasks.federate.strategies.strategy import Strategy


class Alternating(OneFactor):
    """Round 1 trains B, since a fresh B is zero and A would get no gradient."""

    def frozen(self, round_number: int) -> Literal["A", "B"]:
        """A in odd rounds, B in even ones."""
        return "A" if round_number % 2 else "B"


def around(strategy: Strategy) -> Alternating:
    """The rule around a strategy that keeps nothing between rounds."""
    return Alternating(strategy)
