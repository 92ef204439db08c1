"""A hospital's side of a secure sum. It believes nothing that the coordinator says and other hospitals did not sign."""

import functools
import hashlib
import secrets
from collections.abc import Callable, Collection
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import ArrayLike

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.fixed_point import FixedPoint, to_bytes
from tasks.federate.privacy.secure_aggregation.keys import (
    SECRET_BYTES,
    add_mask,
    agreed,
    own_key,
    pair_key,
    seal,
    sign,
    signed_by,
    unseal,
)
from tasks.federate.privacy.secure_aggregation.messages import (
    Agreement,
    Agreements,
    Delivery,
    KeyList,
    MaskedUpdate,
    PublicKeys,
    Revealed,
    SealedShares,
    Session,
    Survivors,
)
from tasks.federate.privacy.secure_aggregation.shamir import SHARE_BYTES, split

Given = ParamSpec("Given")
Sent = TypeVar("Sent")
LAST = 5
OVER = LAST + 1


def step(
    number: int,
) -> Callable[[Callable[Concatenate["Participant", Given], Sent]], Callable[Concatenate["Participant", Given], Sent]]:
    """Makes a method the step of this number: it runs once, and only after the one before ended well."""

    def wrap(
        method: Callable[Concatenate["Participant", Given], Sent],
    ) -> Callable[Concatenate["Participant", Given], Sent]:
        @functools.wraps(method)
        def run(participant: "Participant", *given: Given.args, **named: Given.kwargs) -> Sent:
            coming, participant._coming = participant._coming, OVER
            if coming != number:
                participant._refuse(f"step {coming}" if coming <= LAST else "no further step", f"step {number}")
            sent = method(participant, *given, **named)
            participant._coming = number + 1
            return sent

        return run

    return wrap


class Participant:
    """One hospital in one sum: its methods are the steps, each called once and in this order.

    A step that fails ends the hospital's part: nothing that the coordinator sends afterwards gets an answer.

    Args:
        name: the hospital's name in the session.
        identity: the private key of its public key in the session.
        session: what all parties know beforehand.

    Raises StudyError if the session does not have this hospital with this key. Every step raises StudyError if it is
    called out of turn, or if what it is given does not fit: see each.
    """

    def __init__(self, name: str, identity: Ed25519PrivateKey, session: Session) -> None:
        if session.hospitals.get(name) != identity.public_key().public_bytes_raw():
            raise StudyError(
                f"Expected {name} with its own key in the secure sum {session.name}, found another or none."
            )
        self.name, self.session = name, session
        self._identity = identity
        self._masking, self._sealing = (X25519PrivateKey.generate() for _ in range(2))
        self._seed = secrets.token_bytes(SECRET_BYTES)
        self._coming = 1
        self._keys: dict[str, PublicKeys] = {}
        self._shares: dict[str, tuple[bytes, bytes]] = {}
        """By hospital: the shares of its masking key and of its seed that this one holds."""
        self._survivors: Survivors

    @step(1)
    def advertise(self) -> PublicKeys:
        """Step 1: this hospital's public keys, signed."""
        keys = PublicKeys(
            hospital=self.name,
            masking=self._masking.public_key().public_bytes_raw(),
            sealing=self._sealing.public_key().public_bytes_raw(),
            seed_digest=hashlib.sha256(self._seed).digest(),
            signature=bytes(64),
        )
        self._own_keys = keys.model_copy(update={"signature": self._identity.sign(keys.signed(self.session))})
        return self._own_keys

    @step(2)
    def share(self, listed: KeyList) -> SealedShares:
        """Step 2: shares of this hospital's two secrets, each sealed for the hospital that is to keep it.

        Raises StudyError if hospitals are fewer than the threshold, appear twice, or did not sign their keys.
        """
        keys = {each.hospital: each for each in listed.keys}
        self._refuse_few(keys, "advertised keys")
        different = {key for each in listed.keys for key in (each.masking, each.sealing)}
        if (
            len(keys) < len(listed.keys)
            or len(different) < 2 * len(listed.keys)
            or keys.get(self.name) != self._own_keys
        ):
            self._refuse("each hospital's own keys once", "keys that are repeated or exchanged")
        for name, each in keys.items():
            if not signed_by(self.session.hospitals[name], each.signature, each.signed(self.session)):
                self._refuse(f"keys that {name} signed for this sum", "others")
        self._keys = keys
        places, threshold = {name: self.session.places[name] for name in keys}, self.session.threshold
        masking = split(self._masking.private_bytes_raw(), threshold, places.values())
        seed = split(self._seed, threshold, places.values())
        mine = {name: (masking[place], seed[place]) for name, place in places.items()}
        self._shares[self.name] = mine.pop(self.name)
        sealed = {name: seal(*self._box(name, self.name, name, b"".join(pair))) for name, pair in mine.items()}
        return SealedShares(hospital=self.name, sealed=sealed)

    @step(3)
    def mask(self, delivered: Delivery, values: ArrayLike) -> MaskedUpdate:
        """Step 3: the values `(length,)` under this hospital's own mask and one for each other hospital.

        Raises StudyError if too few hospitals sent shares, if shares were changed or were not for this hospital, or if
        a value is too large to be summed.
        """
        if self.name in delivered.sealed or not delivered.sealed.keys() <= self._keys.keys():
            self._refuse("shares of hospitals that advertised keys", "others")
        for name, sealed in delivered.sealed.items():
            plain = unseal(*self._box(name, name, self.name, sealed))
            if len(plain) != 2 * SHARE_BYTES:
                self._refuse(f"two shares of {name}", f"{len(plain)} bytes")
            self._shares[name] = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
        self._refuse_few(self._shares, "sent shares")
        words = FixedPoint(len(self.session.hospitals), self.session.bits).encode(values)
        if words.shape != (self.session.length,):
            self._refuse(f"{self.session.length} numbers to mask", f"an array of shape {words.shape}")
        for name in self._shares.keys() - {self.name}:
            key = pair_key(self.session, self._masking.private_bytes_raw(), self._keys[name].masking, self.name, name)
            add_mask(words, key, sign(self.name, name))
        add_mask(words, own_key(self.session, self._seed), 1)
        return MaskedUpdate(hospital=self.name, words=to_bytes(words))

    @step(4)
    def agree(self, survivors: Survivors) -> Agreement:
        """Step 4: sign the set of survivors. It is the only set that this hospital ever unmasks.

        Raises StudyError if the set is smaller than the threshold, or lacks this hospital.
        """
        names = set(survivors.hospitals)
        self._refuse_few(names, "survived")
        if len(names) < len(survivors.hospitals) or self.name not in names or not names <= self._shares.keys():
            self._refuse(f"survivors that sent shares, with {self.name} among them", "others")
        self._survivors = survivors
        return Agreement(hospital=self.name, signature=self._identity.sign(survivors.signed(self.session)))

    @step(5)
    def reveal(self, agreements: Agreements) -> Revealed:
        """Step 5: the shares that unmask the sum of the survivors, if enough of them signed the very same set.

        For a survivor this is the share of its seed, for a hospital that dropped out that of its masking key. No
        hospital is ever both: then its update alone could be unmasked.
        """
        survivors = set(self._survivors.hospitals)
        content = self._survivors.signed(self.session)
        if not agreements.signatures.keys() <= survivors or not all(
            signed_by(self.session.hospitals[name], signature, content)
            for name, signature in agreements.signatures.items()
        ):
            self._refuse("survivors' signatures of the set that this hospital signed", "others")
        self._refuse_few(agreements.signatures, "signed the survivors")
        return Revealed(
            hospital=self.name,
            masking={name: pair[0] for name, pair in self._shares.items() if name not in survivors},
            seeds={name: pair[1] for name, pair in self._shares.items() if name in survivors},
        )

    def _box(self, other: str, sender: str, receiver: str, content: bytes) -> tuple[bytes, bytes, bytes]:
        """Key, content and associated data of the box from `sender` to `receiver`, one of which is `other`."""
        about = self.session.about("shares", sender, receiver)
        return agreed(self._sealing.private_bytes_raw(), self._keys[other].sealing, about), content, about

    def _refuse_few(self, names: Collection[str], what: str) -> None:
        known = set(names) & self.session.hospitals.keys()
        if len(known) < len(names):
            self._refuse("hospitals of the session alone", "others")
        if len(known) < self.session.threshold:
            self._refuse(f"at least {self.session.threshold} hospitals that {what}", str(len(known)))

    def _refuse(self, expected: str, found: str) -> NoReturn:
        raise StudyError(
            f"{self.name} leaves the secure sum {self.session.name}: expected {expected}, found {found}; the "
            "coordinator is at fault, or too few hospitals answer."
        )
