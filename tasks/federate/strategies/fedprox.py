"""FedProx (Li et al., arXiv 1812.06127): a proximal term keeps local training near the round's start."""

from dataclasses import dataclass

from tasks.federate.strategies.fedavg import FedAvg
from tasks.records.federation import Order
from tasks.settings import LocalRule, StrategySettings


@dataclass(frozen=True)
class FedProx(FedAvg):
    """Federated averaging in which hospitals add `mu / 2 * |w - w_start|^2` to their loss."""

    mu: float

    def order(self, round_number: int, hospital: str) -> Order:
        """Train from the mean, and stay near it."""
        return Order(round_number, start="global", local=LocalRule(proximal_mu=self.mu))


def strategy(settings: StrategySettings) -> FedProx:
    """With `federation.proximal_mu`."""
    return FedProx(settings.proximal_mu)
