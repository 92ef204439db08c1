"""What a secure sum costs: `python -m benchmarks.secure_aggregation [--parameters N] [--hospitals N ...] [--gone N]`.

Bytes and seconds of one hospital (the mean over those that stay), and seconds of the coordinator, in one process.
Messages go through their form in bytes. The sum is checked against the plain one. Seconds are the processor's: other
work on the machine does not count. One hospital's masked numbers are in memory at a time.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.coordinator import Coordinator
from tasks.federate.privacy.secure_aggregation.fixed_point import FixedPoint
from tasks.federate.privacy.secure_aggregation.messages import Message, Session, majority, pack, unpack
from tasks.federate.privacy.secure_aggregation.participant import Participant
from tasks.store import peak_memory


@dataclass
class Cost:
    """What all hospitals of a sum took, and the coordinator."""

    hospitals: int
    sent: int = 0
    """Bytes from the hospitals."""
    received: int = 0
    hospital_s: float = 0.0
    coordinator_s: float = 0.0
    error: float = 0.0
    """Largest difference from the plain sum."""

    def at_hospital(self, step: Callable[..., Message], *given: Any) -> Any:
        """A step of a hospital, whose messages travel as bytes."""
        began = time.process_time()
        data = pack(step(*given))
        self.hospital_s += time.process_time() - began
        self.sent += len(data)
        return unpack(data)

    def at_coordinator(self, step: Callable[..., Any], *given: Any) -> Any:
        """A step of the coordinator."""
        began = time.process_time()
        made = step(*given)
        self.coordinator_s += time.process_time() - began
        return made

    def deliver(self, message: Message, times: int) -> None:
        """Count a message that so many hospitals get."""
        self.received += times * len(pack(message))


def measure(hospitals: int, parameters: int, gone: int) -> Cost:
    """One sum, `gone` hospitals of which drop out after they shared their secrets."""
    identities = {f"hospital-{n:02d}": Ed25519PrivateKey.generate() for n in range(hospitals)}
    public = {name: key.public_key().public_bytes_raw() for name, key in identities.items()}
    session = Session(name="benchmark", hospitals=public, threshold=majority(hospitals), length=parameters)
    parties = {name: Participant(name, key, session) for name, key in identities.items()}
    coordinator, cost = Coordinator(session), Cost(hospitals)
    values = np.random.default_rng(0).normal(0, 0.01, parameters)

    keys = cost.at_coordinator(coordinator.list_keys, [cost.at_hospital(each.advertise) for each in parties.values()])
    cost.deliver(keys, hospitals)
    shares = [cost.at_hospital(each.share, keys) for each in parties.values()]
    delivered = cost.at_coordinator(coordinator.deliver, shares)
    staying = list(parties)[gone:]
    for name in staying:
        cost.deliver(delivered[name], 1)
        cost.at_coordinator(coordinator.add, cost.at_hospital(parties[name].mask, delivered[name], values))
    survivors = cost.at_coordinator(coordinator.survivors)
    cost.deliver(survivors, len(staying))
    agreed = [cost.at_hospital(parties[name].agree, survivors) for name in staying]
    agreements = cost.at_coordinator(coordinator.agreements, agreed)
    cost.deliver(agreements, len(staying))
    revealed = [cost.at_hospital(parties[name].reveal, agreements) for name in staying]
    found = cost.at_coordinator(coordinator.unmask, revealed)
    expected = len(staying) * values
    cost.error = float(np.abs(found - expected).max())
    if not cost.error <= FixedPoint(hospitals).error_bound(float(np.abs(expected).max())) + 1e-15:
        raise StudyError(f"Expected the sum of {hospitals} hospitals within its bound, found {cost.error:g} beside it.")
    return cost


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--hospitals", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--gone", type=int, default=0, help="hospitals that drop out before they send")
    given = parser.parse_args()
    table = Table(title=f"Secure sum of {given.parameters:,} parameters, {given.gone} dropped out")
    for heading in (
        "hospitals",
        "MB sent",
        "MB received",
        "times plain float32",
        "s a hospital",
        "s coordinator",
        "peak MB",
    ):
        table.add_column(heading, justify="right")
    for hospitals in given.hospitals:
        cost = measure(hospitals, given.parameters, given.gone)
        staying = hospitals - given.gone
        sent = cost.sent / staying
        table.add_row(
            *(str(hospitals), f"{sent / 1e6:.3f}", f"{cost.received / staying / 1e6:.3f}"),
            *(
                f"{sent / (4 * given.parameters):.2f}",
                f"{cost.hospital_s / staying:.2f}",
                f"{cost.coordinator_s:.2f}",
                f"{peak_memory() / 1e6:.0f}",
            ),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
