"""The local runtime: each hospital of a simulation is a task of this process."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

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
        trained, missing = answers(training, names)
        took = seconds(trained.values())
        if not keeps:
            return Trained(trained, took, missing=missing)
        sending = send_update.map(
            hospital=list(trained),
            trained=list(trained.values()),
            keeps=unmapped(keeps),
            round_number=unmapped(orders[0].round),
        )
        return Trained(gather_named(sending, list(trained)), took, kept=trained, missing=missing)

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
    answered, missing = answers(futures, hospitals)
    if missing:
        refuse_missing(missing, len(hospitals))
    return list(answered.values())


def gather_named(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> dict[str, Ref]:
    """As `gather`, by hospital."""
    return dict(zip(hospitals, gather(futures, hospitals), strict=True))


def answers(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> tuple[dict[str, Ref], dict[str, Exception]]:
    """Wait for one task per hospital, and return by hospital their results, and the errors of those that failed."""
    wait(list(futures))
    answered, missing = dict[str, Ref](), dict[str, Exception]()
    for hospital, future in zip(hospitals, futures, strict=True):
        if future.state.is_completed():
            answered[hospital] = future.result()
        else:
            error: Any = future.result(raise_on_failure=False)
            missing[hospital] = error
    return answered, missing


def refuse_missing(missing: Mapping[str, Exception], asked: int) -> NoReturn:
    """Raise StudyError for hospitals without which a study does not go on: how many, and the first with its reason."""
    hospital, error = next(iter(missing.items()))
    reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
    raise StudyError(
        f"{len(missing)} of {counted(asked, 'hospitals')} failed, first {hospital}: {reason} "
        "(the others' work is kept: retry the run once this is mended)"
    )
