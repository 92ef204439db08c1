"""The local runtime: the hospitals of a simulation work in tasks of this process."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped

from flows.mapped import all_alike, answers, gather, gather_named
from flows.runtimes.runtime import Trained, seconds
from tasks.federate.step import send_update, train_at_home, train_hospital, validate_hospital
from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref


class Local:
    """Trains hospitals one after another, or as the flow's task runner schedules them."""

    at_once = 1  # all use one engine

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Train each hospital; one that keeps a part of its tensors then sends the rest."""
        names, keeps = [hospital.name for hospital in hospitals], orders[0].keeps
        trained, missing = answers(
            train_at_home if keeps else train_hospital,
            names,
            hospital=list(hospitals),
            local=[order.local for order in orders],
            round_number=[order.round for order in orders],
            **all_alike(settings),
        )
        took = seconds(trained.values())
        if not keeps:
            return Trained(trained, took, missing=missing)
        sent = gather_named(
            send_update,
            list(trained),
            hospital=list(trained),
            trained=list(trained.values()),
            keeps=unmapped(keeps),
            round_number=unmapped(orders[0].round),
        )
        return Trained(sent, took, kept=trained, missing=missing)

    def validate(self, hospitals: Sequence[HospitalRefs], settings: Mapping[str, Any]) -> list[Ref]:
        """Validate each hospital."""
        names = [hospital.name for hospital in hospitals]
        return gather(validate_hospital, names, hospital=list(hospitals), **all_alike(settings))
