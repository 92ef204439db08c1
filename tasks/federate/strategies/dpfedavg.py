"""DP-FedAvg (McMahan et al., arXiv 1710.06963): the mean of clipped updates, with noise that hides any one hospital."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.errors import StudyError
from tasks.federate.strategies.fedavg import FedAvg
from tasks.federate.strategies.strategy import Need
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


@dataclass(frozen=True)
class DPFedAvg(FedAvg):
    """Federated averaging in which each hospital counts the same, and none moves the mean by more than `clip`."""

    needs: ClassVar[frozenset[Need]] = frozenset({"updates"})
    clip: float
    sigma: float | None

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Each group moves by the noisy mean of the hospitals' clipped steps.

        Raises StudyError if nobody said how much noise there is to be.
        """
        from tasks.federate.privacy.dp_fedavg import noisy_mean
        from tasks.federate.privacy.secret import COORDINATOR, noise_secret
        from tasks.federate.state import ServerState

        if self.sigma is None:
            raise StudyError(
                "Expected federation.privacy.sigma for dpfedavg, found none: set it, or run the whole study."
            )
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
    """With `federation.privacy.clip` and `sigma`; a study finds the latter before its rounds."""
    return DPFedAvg(settings.privacy.clip, settings.privacy.sigma)
