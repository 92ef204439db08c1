"""DP-FedAvg (McMahan et al., arXiv 1710.06963): the mean of clipped updates, with noise that hides any one hospital."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.federate.strategies.fedavg import FedAvg
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


@dataclass(frozen=True)
class DPFedAvg(FedAvg):
    """Federated averaging in which each hospital counts the same, and none moves the mean by more than `clip`."""

    clip: float
    sigma: float

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Each group moves by the noisy mean of the hospitals' clipped steps."""
        from tasks.federate.state import ServerState
        from tasks.privacy.dp_fedavg import noisy_mean
        from tasks.privacy.secret import COORDINATOR, noise_secret

        secret = noise_secret(COORDINATOR)
        return ServerState(
            {
                group: noisy_mean(
                    state.groups[group], [update.parts[group] for update in updates], self.clip, self.sigma, secret
                )
                for group in updates[0].parts
            }
        )


def strategy(settings: StrategySettings) -> DPFedAvg:
    """With `federation.privacy.clip`, and `sigma` as it was found for all rounds (0 for a study that is not run)."""
    return DPFedAvg(settings.privacy.clip, settings.privacy.sigma or 0.0)
