"""The stacked runtime (`engine.executor=batched`): all hospitals of a simulation train in one pass over the base."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped

from flows.mapped import gather_named
from flows.runtimes.local import Local
from flows.runtimes.runtime import Trained, seconds
from tasks.federate.step import take_update, train_together
from tasks.records.federation import HospitalRefs, Order


class Stacked(Local):
    """Batches all hospitals: each row of a batch goes through its hospital's LoRA. All start from one adapter."""

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Train in one pass; falls back to `Local` if hospitals have adapters, ranks or controls of their own."""
        if any(order.start != "global" or order.local.control or order.local.rank for order in orders):
            return super().train(hospitals, orders, settings)
        names, number = [hospital.name for hospital in hospitals], orders[0].round
        together = train_together(hospitals=list(hospitals), **settings, local=orders[0].local, round_number=number)
        common = {"together": unmapped(together), "round_number": unmapped(number)}
        return Trained(gather_named(take_update, names, hospital=names, **common), seconds([together]))
