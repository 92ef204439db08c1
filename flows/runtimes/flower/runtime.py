"""The runtime of hospitals on other machines (`federation.runtime=flower`): each is asked by the link, all at once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

from prefect import unmapped
from prefect.futures import PrefectFutureList

from flows.mapped import all_alike, heard
from flows.runtimes.runtime import Trained, seconds
from tasks.errors import StudyError
from tasks.federate.remote.parcel import closing_if_told_to_end
from tasks.federate.remote.step import hear_sum, hear_trained, hear_update, hear_validation
from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref

logger = logging.getLogger("fed_rag")


@dataclass(frozen=True)
class Flower:
    """Orders go out and updates come back by the link of this context (`tasks.federate.remote.parcel.linked`)."""

    in_secret: bool = False
    """Whether updates stay at the hospitals, and only their sum comes back."""
    at_once: ClassVar[int] = 256  # each waits in a thread of its own

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Let every hospital train; what arrived is kept, and not asked for again."""
        hear = hear_trained if self.in_secret else hear_update
        hearing = hear.map(
            hospital=list(hospitals),
            local=[order.local for order in orders],
            keeps=unmapped(orders[0].keeps),
            round_number=[order.round for order in orders],
            **all_alike(settings),
        )
        with closing_if_told_to_end():
            updates, missing = heard(hearing, [hospital.name for hospital in hospitals])
        trained = Trained(updates, seconds(updates.values()), missing=missing)
        if not self.in_secret:
            return trained

        @cache
        def summed() -> Ref:
            there = [hospital for hospital in hospitals if hospital.name in updates]
            order: dict[str, Any] = {name: getattr(orders[0], name) for name in ("local", "keeps")}
            told, number = list(updates.values()), orders[0].round
            return hear_sum(hospitals=there, trained=told, round_number=number, **order, **settings)

        return replace(trained, summed=summed)

    def validate(self, hospitals: Sequence[HospitalRefs], settings: Mapping[str, Any]) -> list[Ref]:
        """Let every hospital compute its loss; one that does not answer is left out and named."""
        hearing = hear_validation.map(hospital=list(hospitals), **all_alike(settings))
        return answered(hearing, [hospital.name for hospital in hospitals])


def answered(hearing: PrefectFutureList[Ref], hospitals: Sequence[str]) -> list[Ref]:
    """What arrived from each hospital that answered; the others are named in the log."""
    with closing_if_told_to_end():
        came, missing = heard(hearing, hospitals)
    for hospital, error in missing.items():
        logger.warning(
            "%s did not answer: %s", hospital, error if isinstance(error, StudyError) else type(error).__name__
        )
    return list(came.values())
