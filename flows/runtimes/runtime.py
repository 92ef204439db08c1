"""The interface between coordinator and hospitals: orders go out, updates come back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref


@dataclass(frozen=True)
class Trained:
    """The updates of one round."""

    updates: dict[str, Ref]
    """By hospital that answered, its update; in the order of the orders."""
    seconds: float
    """Duration of the training, as measured when it ran."""
    kept: dict[str, Ref] = field(default_factory=dict)
    """What each hospital trained and keeps, where its update is a part of it; empty where updates are all of it."""
    missing: dict[str, Exception] = field(default_factory=dict)
    """By hospital that did not answer, why."""
    summed: Callable[[], Ref] | None = None
    """Makes the mean by a secure sum, where single updates stay at the hospitals; `updates` then only tell of them."""


class Runtime(Protocol):
    """A way to run training at the hospitals."""

    @property
    def at_once(self) -> int:
        """Most hospitals that work at the same time."""

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Train every hospital by its order; all orders are of the same round. Whoever fails is told as missing.

        Args:
            hospitals: each with the adapter that it starts from.
            orders: one for each hospital.
            settings: the other parameters of `train_hospital`, shared by all hospitals.
        """

    def validate(self, hospitals: Sequence[HospitalRefs], settings: Mapping[str, Any]) -> list[Ref]:
        """Compute every hospital's loss on its held-out cases, with its adapter.

        `settings` are the other parameters of `validate_hospital`. Raises StudyError as `train` does.
        """


def seconds(refs: Iterable[Ref]) -> float:
    """The seconds that making some folders took, summed."""
    return round(sum(ref.manifest()["seconds"] for ref in refs), 3)
