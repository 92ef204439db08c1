"""The local runtime: each hospital of a simulation is a task of this process."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped
from prefect.futures import PrefectFutureList, wait

from flows.runtimes.runtime import Trained, seconds
from tasks.errors import StudyError
from tasks.federate.step import send_update, train_at_home, train_hospital, validate_hospital
from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref
from tasks.text.wording import counted


class Local:
    """Trains hospitals one after another, or as the flow's task runner schedules them."""

    at_once = 1  # all use one engine

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Train each hospital in its own task; one that keeps a part of its tensors sends the rest in another."""
        names, keeps = [hospital.name for hospital in hospitals], orders[0].keeps
        training = (train_at_home if keeps else train_hospital).map(
            hospital=list(hospitals),
            local=[order.local for order in orders],
            round_number=[order.round for order in orders],
            **all_alike(settings),
        )
        trained = gather(training, names)
        if not keeps:
            return Trained(trained, seconds(trained))
        sending = send_update.map(
            hospital=names, trained=trained, keeps=unmapped(keeps), round_number=unmapped(orders[0].round)
        )
        return Trained(gather(sending, names), seconds(trained), kept=trained)

    def validate(self, hospitals: Sequence[HospitalRefs], settings: Mapping[str, Any]) -> list[Ref]:
        """Validate each hospital in its own task."""
        validating = validate_hospital.map(hospital=list(hospitals), **all_alike(settings))
        return gather(validating, [hospital.name for hospital in hospitals])


def all_alike(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Mark parameters as the same for each task of a `map`."""
    return {name: unmapped(value) for name, value in parameters.items()}


def gather(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> list[Ref]:
    """Wait for one task per hospital, and return their results.

    Raises StudyError if tasks failed, with their number and the first one's hospital; the others' results are kept.
    """
    wait(list(futures))
    failed = {
        hospital: future.result(raise_on_failure=False)
        for hospital, future in zip(hospitals, futures, strict=True)
        if not future.state.is_completed()
    }
    if failed:
        hospital, error = next(iter(failed.items()))
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        raise StudyError(
            f"{len(failed)} of {counted(len(hospitals), 'hospitals')} failed, first {hospital}: {reason} "
            "(the others' work is kept: retry the run once this is mended)"
        )
    return futures.result()
