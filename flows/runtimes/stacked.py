"""All hospitals of a simulation in one pass over the base: `engine.executor=batched`."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped

from flows.runtimes.local import Local, gather
from flows.runtimes.runtime import Trained, seconds
from tasks.federate.step import take_update, train_together
from tasks.records.federation import HospitalRefs, Order


class Stacked:
    """Rows of a batch go through their own hospital's LoRA; all start from one adapter."""

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """In one pass; one after the other where hospitals start from adapters of their own."""
        if any(order.start == "own" for order in orders):
            return Local().train(hospitals, orders, settings)
        names, number = [hospital.name for hospital in hospitals], orders[0].round
        together = train_together(hospitals=list(hospitals), **settings, local=orders[0].local, round_number=number)
        parted = take_update.map(hospital=names, together=unmapped(together), round_number=unmapped(number))
        return Trained(gather(parted, names), seconds([together]))
