"""The runtime of hospitals on other machines (`federation.runtime=flower`): each is asked by the link, all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.runtimes.local import all_alike, answers, gather
from flows.runtimes.runtime import Trained, seconds
from tasks.federate.remote.parcel import closing_if_told_to_end
from tasks.federate.remote.step import hear_update, hear_validation
from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref


class Flower:
    """Orders go out and updates come back by the link of this context (`tasks.federate.remote.parcel.linked`)."""

    at_once = 256  # each waits in a thread of its own

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Let every hospital train; what arrived is kept, and not asked for again."""
        hearing = hear_update.map(
            hospital=list(hospitals),
            local=[order.local for order in orders],
            round_number=[order.round for order in orders],
            **all_alike(settings),
        )
        with closing_if_told_to_end():
            updates, missing = answers(hearing, [hospital.name for hospital in hospitals])
        return Trained(updates, seconds(updates.values()), missing=missing)

    def validate(self, hospitals: Sequence[HospitalRefs], settings: Mapping[str, Any]) -> list[Ref]:
        """Let every hospital compute its loss."""
        hearing = hear_validation.map(hospital=list(hospitals), **all_alike(settings))
        with closing_if_told_to_end():
            return gather(hearing, [hospital.name for hospital in hospitals])
