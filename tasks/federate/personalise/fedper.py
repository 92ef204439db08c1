"""FedPer (Arivazhagan et al., arXiv 1912.00818): some layers are each hospital's own, the others are averaged."""

from dataclasses import dataclass, replace

from tasks.federate.lora_mean.factors import Factors
from tasks.records.federation import Order


@dataclass(frozen=True)
class FedPer(Factors):
    """A rule for the layers that are shared; all layers learn."""

    layers: tuple[str, ...]

    def order(self, round_number: int, hospital: str) -> Order:
        """The rule's order, to go on from the server's layers and the hospital's own."""
        return replace(super().order(round_number, hospital), start="joined", keeps=self.layers)
