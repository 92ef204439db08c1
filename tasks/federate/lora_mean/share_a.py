"""FedSA-LoRA (arXiv 2410.01463): A is averaged for all; each hospital keeps its B, and so an adapter of its own.

There is no adapter for all, so that neither exact nor approximate says anything of it.
"""

from dataclasses import replace

from tasks.federate.lora_mean.factors import Factors
from tasks.federate.strategies.strategy import Strategy
from tasks.records.federation import Order


class SharedA(Factors):
    """Hospitals train both factors and send A alone."""

    def order(self, round_number: int, hospital: str) -> Order:
        """The strategy's order, to go on from the server's A and the hospital's B."""
        return replace(super().order(round_number, hospital), start="joined", keeps=("lora_B",))


def around(strategy: Strategy) -> SharedA:
    """The rule around a strategy."""
    return SharedA(strategy)
