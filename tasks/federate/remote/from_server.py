"""Rules by which hospitals keep a part of the adapter, where they are elsewhere: what they keep is not seen here."""

from dataclasses import dataclass, replace

from tasks.federate.lora_mean.factors import Factors
from tasks.records.federation import Order


@dataclass(frozen=True)
class FromServer(Factors):
    """A rule whose hospitals are sent the server's tensors, and join their own to them by themselves."""

    def order(self, round_number: int, hospital: str) -> Order:
        """The rule's order, to start from what the server has."""
        order = super().order(round_number, hospital)
        return replace(order, start="global") if order.start == "joined" else order
