"""FedNova (Wang et al., arXiv 2007.07481): each hospital's delta counts by the step, not by how many it took."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tasks.federate.strategies.fedavg import FedAvg
from tasks.federate.strategies.strategy import Need
from tasks.settings import StrategySettings

if TYPE_CHECKING:
    from tasks.federate.state import ServerState, Update


class FedNova(FedAvg):
    """Federated averaging in which hospitals with more local steps do not pull harder for that."""

    needs: ClassVar[frozenset[Need]] = frozenset({"sum", "counts"})

    def aggregate(self, state: "ServerState", updates: "Sequence[Update]") -> "ServerState":
        """Each group moved by `steps * sum of p_k * delta_k / steps_k`, where `steps = sum of p_k * steps_k`.

        p_k is a hospital's share of the samples, steps_k the optimiser steps that it took.
        Raises StudyError if an update has no samples.
        """
        from tasks.federate.means import mean_delta, shares
        from tasks.federate.state import ServerState

        share = shares([update.samples for update in updates])
        mean_steps = sum(each * update.steps for each, update in zip(share, updates, strict=True))
        weights = [each * mean_steps / update.steps for each, update in zip(share, updates, strict=True)]
        groups = {}
        for group in updates[0].parts:
            start = state.groups[group]
            step = mean_delta(start, [update.parts[group] for update in updates], weights)
            groups[group] = {name: (start[name].double() + step[name]).float() for name in start}
        return ServerState(groups)


def strategy(settings: StrategySettings) -> FedNova:
    """It has no settings."""
    return FedNova()
