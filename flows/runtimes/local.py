"""Hospitals of a simulation: each is a task of this process."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import unmapped
from prefect.futures import PrefectFutureList, wait

from flows.runtimes.runtime import Trained, seconds
from tasks.errors import StudyError
from tasks.federate.step import train_hospital
from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref
from tasks.text.wording import counted


class Local:
    """Hospitals train one after the other, as the flow's task runner lets them."""

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Each in a task of its own."""
        training = train_hospital.map(
            hospital=list(hospitals),
            local=[order.local for order in orders],
            round_number=[order.round for order in orders],
            **all_alike(settings),
        )
        updates = gather(training, [hospital.name for hospital in hospitals])
        return Trained(updates, seconds(updates))


def all_alike(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that are the same for each task of a `map`."""
    return {name: unmapped(value) for name, value in parameters.items()}


def gather(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> list[Ref]:
    """The results of one task for each hospital, once all have ended.

    Raises StudyError that names the hospitals that failed; what the others made is kept.
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
