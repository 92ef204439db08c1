"""How the coordinator reaches hospitals: orders go out, updates come back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.records.federation import HospitalRefs, Order
from tasks.store import Ref


@dataclass(frozen=True)
class Trained:
    """What came back of one round."""

    updates: list[Ref]
    """Each hospital's, in the order of the orders."""
    seconds: float
    """What training them took, as it was when it was done."""


class Runtime(Protocol):
    """A way to let hospitals train."""

    def train(self, hospitals: Sequence[HospitalRefs], orders: Sequence[Order], settings: Mapping[str, Any]) -> Trained:
        """Every hospital carries out its order of one and the same round.

        Args:
            hospitals: each with the adapter that it starts from.
            orders: one for each hospital.
            settings: what the training of all of them follows from beside that, as `train_hospital` takes it.

        Raises StudyError that names the hospitals that failed; what the others made is kept.
        """


def seconds(refs: Sequence[Ref]) -> float:
    """What making some folders took."""
    return round(sum(ref.manifest()["seconds"] for ref in refs), 3)
