"""A hospital's part in secure sums over a network: with whom it sums, one sum at a time, each update in one way."""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.fixed_point import FixedPoint
from tasks.federate.privacy.secure_aggregation.messages import (
    Agreements,
    Delivery,
    KeyList,
    Message,
    Session,
    Survivors,
    pack,
    unpack,
)
from tasks.federate.privacy.secure_aggregation.participant import Participant
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.parcel import MESSAGE, Parcel
from tasks.federate.remote.sum_record import SumRecord

Vector = NDArray[np.float64]


def session_name(number: int, nonces: Mapping[str, str]) -> str:
    """The name of a sum: no other one has it as long as one hospital's nonce is new.

    Args:
        number: of the round.
        nonces: by hospital, what it drew for this sum.
    """
    drawn = json.dumps(sorted(nonces.items())).encode()
    return f"of round {number} ({hashlib.sha256(drawn).hexdigest()[:32]})"


@dataclass
class _Sum:
    """One sum that a hospital has a part in."""

    number: int
    update: str
    values: Callable[[], Vector]
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    part: Participant | None = None
    answered: dict[bytes, bytes] = field(default_factory=dict)
    """Answers by the digest of what they answer: a message that comes again gets the same answer again."""


class Summing:
    """A hospital's side of secure sums. It sums with hospitals whose keys it has, and with nobody else.

    Args:
        name: the hospital's.
        identity: its key, which signs what it says in a sum.
        others: public keys of the other hospitals, which came from them and not from the coordinator.
        fewest: fewest hospitals whose sum it unmasks.
        record: of the sums that it had a part in.
    """

    def __init__(
        self, name: str, identity: Ed25519PrivateKey, others: Mapping[str, bytes], fewest: int, record: SumRecord
    ) -> None:
        self._name, self._identity, self._fewest, self._record = name, identity, fewest, record
        self._known = {**others, name: self.key}
        self._sum: _Sum | None = None

    @property
    def key(self) -> bytes:
        """The public key of this hospital."""
        return self._identity.public_key().public_bytes_raw()

    def begin(self, number: int, update: str, values: Callable[[], Vector]) -> str:
        """Be ready for one sum of a round, in place of any former one; returns the nonce that its name must hold.

        Args:
            number: of the round.
            update: tells the update from all others.
            values: gives what is to be masked.
        """
        self._sum = _Sum(number, update, values)
        return self._sum.nonce

    def answer(self, request: Parcel) -> Parcel:
        """Take the next step of the sum that has begun. Raises NotAgreedError if it cannot be taken, and ends there."""
        this = self._sum
        if this is None:
            raise NotAgreedError("Expected the beginning of a secure sum, found a later step: this process is new.")
        message = request.files.get(MESSAGE, b"")
        asked = hashlib.sha256(json.dumps(dict(request.about.get("nonces", {}))).encode() + message).digest()
        if asked not in this.answered:
            try:
                this.answered[asked] = pack(self._step(this, request, unpack(message)))
            except StudyError as error:
                self._sum = None
                raise NotAgreedError(str(error)) from None
        return Parcel("done", {}, {MESSAGE: this.answered[asked]})

    def _step(self, this: _Sum, request: Parcel, message: Message) -> Message:
        if isinstance(message, Session):
            return self._enter(this, message, dict(request.about.get("nonces", {})))
        if this.part is None:
            raise NotAgreedError("Expected the session of a secure sum first, found a later step.")
        match message:
            case KeyList():
                return this.part.share(message)
            case Delivery():
                return this.part.mask(message, self._values(this, this.part.session))
            case Survivors():
                self._refuse_few(len(message.hospitals))
                agreed = this.part.agree(message)
                self._record.sign(this.update, this.part.session.hospitals, message.hospitals)
                return agreed
            case Agreements():
                return this.part.reveal(message)
        raise NotAgreedError("Expected a step of a secure sum, found another message.")

    def _enter(self, this: _Sum, session: Session, nonces: dict[str, str]) -> Message:
        """Take part in a session, if it is a new one, of hospitals that this one knows."""
        if this.part is not None:
            raise NotAgreedError("Expected one session in a secure sum, found another.")
        if nonces.get(self._name) != this.nonce or session.name != session_name(this.number, nonces):
            raise NotAgreedError("Expected a secure sum with a new name, found another: it may be an earlier one's.")
        self._refuse_few(len(session.hospitals))
        for name, key in session.hospitals.items():
            if name not in self._known:
                raise NotAgreedError(
                    f"Expected hospitals whose keys {self._name} has in a secure sum, found {name}, whose key it has "
                    "not: get the key from that hospital, and not from the coordinator."
                )
            if self._known[name] != key:
                raise NotAgreedError(
                    f"Expected the key that {self._name} has of {name} in a secure sum, found another: compare "
                    "fingerprints with that hospital, since somebody may be in its place."
                )
        self._record.refuse_other_circle(this.update, session.hospitals)
        this.part = Participant(self._name, self._identity, session)
        return this.part.advertise()

    def _values(self, this: _Sum, session: Session) -> Vector:
        """What is to be masked. Raises NotAgreedError without any of its numbers if it cannot be."""
        values, largest = this.values(), FixedPoint(len(session.hospitals), session.bits).largest
        if not np.abs(values).max(initial=0.0) < largest:  # also where it is NaN
            raise NotAgreedError("Expected an update that can be summed, found one that diverged: it sends none.")
        return values

    def _refuse_few(self, count: int) -> None:
        if count < self._fewest:
            raise NotAgreedError(
                f"Expected at least {self._fewest} hospitals in a secure sum (secure_sums.fewest), found {count}."
            )
