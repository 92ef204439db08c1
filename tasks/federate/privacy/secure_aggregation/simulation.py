"""A secure sum in which one process plays all parties, each of which sees its own messages alone."""

from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from tasks.federate.privacy.secure_aggregation.coordinator import Coordinator
from tasks.federate.privacy.secure_aggregation.messages import Session, majority
from tasks.federate.privacy.secure_aggregation.participant import Participant


def secure_sum(
    name: str, vectors: Mapping[str, NDArray[np.float64]], gone: Collection[str] = ()
) -> NDArray[np.float64]:
    """The sum of hospitals' vectors `(n,)`, of which the coordinator's side sees masked ones alone.

    Args:
        name: of the session.
        vectors: by hospital.
        gone: hospitals that drop out before they send theirs.

    Raises StudyError if fewer than a majority are left, or if a number is too large.
    """
    identities = {hospital: Ed25519PrivateKey.generate() for hospital in vectors}
    session = Session(
        name=name,
        hospitals={hospital: key.public_key().public_bytes_raw() for hospital, key in identities.items()},
        threshold=majority(len(vectors)),
        length=len(next(iter(vectors.values()))),
    )
    parties = {hospital: Participant(hospital, key, session) for hospital, key in identities.items()}
    coordinator = Coordinator(session)
    keys = coordinator.list_keys([each.advertise() for each in parties.values()])
    delivered = coordinator.deliver([each.share(keys) for each in parties.values()])
    staying = {hospital: each for hospital, each in parties.items() if hospital not in gone}
    for hospital, each in staying.items():
        coordinator.add(each.mask(delivered[hospital], vectors[hospital]))
    survivors = coordinator.survivors()
    agreements = coordinator.agreements([each.agree(survivors) for each in staying.values()])
    return coordinator.unmask([each.reveal(agreements) for each in staying.values()])
