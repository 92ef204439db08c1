"""A runtime with attackers among its hospitals: what they trained is replaced before the coordinator sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import unmapped

from flows.mapped import gather_named
from flows.runtimes.runtime import Runtime, Trained
from tasks.attack.step import falsify_update
from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref


@dataclass(frozen=True)
class Falsified:
    """Trains all hospitals as another runtime does, and falsifies the updates of some of them."""

    honest: Runtime
    """What trains."""
    attack: str
    """A name in `tasks.attack.updates.ATTACKS`."""
    attackers: Sequence[str]
    """Names of the hospitals that attack; they know all updates of a round."""

    @property
    def at_once(self) -> int:
        """As many as those that train."""
        return self.honest.at_once

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Train every hospital, then make the attackers' updates of what all have sent."""
        trained = self.honest.train(hospitals, orders, settings)
        sent = trained.updates
        bad = [name for name in sent if name in self.attackers]
        falsified = gather_named(
            falsify_update,
            bad,
            hospital=bad,
            attack=unmapped(self.attack),
            attackers=unmapped(bad),
            own=unmapped([sent[name] for name in bad]),
            honest=unmapped([ref for name, ref in sent.items() if name not in bad]),
            start=unmapped(hospitals[0].adapter),
            round_number=unmapped(orders[0].round),
            seed=unmapped(settings["seed"]),
            asked=unmapped(settings["federation"].asked_steps),
        )
        return replace(trained, updates=sent | falsified)

    def validate(self, hospitals: Sequence[HospitalRefs], settings: Mapping[str, Any]) -> list[Ref]:
        """Compute losses as those that train do."""
        return self.honest.validate(hospitals, settings)
