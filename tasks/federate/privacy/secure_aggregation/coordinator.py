"""The coordinator's side of a secure sum: it passes messages on, adds masked vectors, and unmasks their sum alone."""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.fixed_point import FixedPoint, Words, from_bytes
from tasks.federate.privacy.secure_aggregation.keys import SECRET_BYTES, add_mask, own_key, pair_key, sign
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
from tasks.federate.privacy.secure_aggregation.shamir import join


class Coordinator:
    """One secure sum, step by step. Each step takes the messages that came and returns what is sent next.

    A hospital whose message is missing in a step has dropped out. Memory is that of one vector, however many come.
    Every step raises StudyError if fewer hospitals than the threshold answered.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._keys: dict[str, PublicKeys] = {}
        self._sharing: set[str] = set()
        self._masked: set[str] = set()
        self._total: Words = np.zeros(session.length, dtype=np.uint64)

    def list_keys(self, advertised: Sequence[PublicKeys]) -> KeyList:
        """Step 1: the keys of the hospitals that answered."""
        self._keys = {each.hospital: each for each in advertised}
        self._refuse_few(self._keys)
        return KeyList(keys=tuple(self._keys[name] for name in sorted(self._keys)))

    def deliver(self, shared: Sequence[SealedShares]) -> dict[str, Delivery]:
        """Step 2: what each hospital that shared its secrets gets of the others."""
        self._sharing = {each.hospital for each in shared}
        self._refuse_few(self._sharing)
        return {
            receiver: Delivery(
                sealed={each.hospital: each.sealed[receiver] for each in shared if each.hospital != receiver}
            )
            for receiver in sorted(self._sharing)
        }

    def add(self, masked: MaskedUpdate) -> None:
        """Step 3: add one masked vector. Raises StudyError if it is not expected, or of another length."""
        if masked.hospital not in self._sharing - self._masked:
            raise StudyError(
                f"Expected one masked update from each hospital of the secure sum {self.session.name}, found another "
                f"of {masked.hospital}: leave it out."
            )
        self._total += from_bytes(masked.words, self.session.length)
        self._masked.add(masked.hospital)

    def survivors(self) -> Survivors:
        """Step 4: the hospitals whose masked vector is in the sum."""
        self._refuse_few(self._masked)
        return Survivors(hospitals=tuple(sorted(self._masked)))

    def agreements(self, agreed: Sequence[Agreement]) -> Agreements:
        """Step 5: the signatures of the survivors that agreed."""
        signatures = {each.hospital: each.signature for each in agreed}
        self._refuse_few(signatures)
        return Agreements(signatures=signatures)

    def unmask(self, revealed: Sequence[Revealed]) -> NDArray[np.float64]:
        """The sum of the survivors' vectors, `(length,)`.

        Raises StudyError if the shares do not give the secrets that hospitals announced.
        """
        self._refuse_few({each.hospital for each in revealed})
        total = self._total.copy()
        for name in self._masked:
            seed = self._joined(name, {each.hospital: each.seeds[name] for each in revealed if name in each.seeds})
            if hashlib.sha256(seed).digest() != self._keys[name].seed_digest:
                self._refuse_shares(name)
            add_mask(total, own_key(self.session, seed), -1)
        for name in self._sharing - self._masked:
            key = self._joined(name, {each.hospital: each.masking[name] for each in revealed if name in each.masking})
            if X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw() != self._keys[name].masking:
                self._refuse_shares(name)
            for other in self._masked:
                mask = pair_key(self.session, key, self._keys[other].masking, other, name)
                add_mask(total, mask, -sign(other, name))
        return FixedPoint(len(self.session.hospitals), self.session.bits).decode(total)

    def _joined(self, name: str, shares: Mapping[str, bytes]) -> bytes:
        """A hospital's secret, from its shares by the hospital that kept them."""
        by_place = {self.session.places[keeper]: share for keeper, share in shares.items()}
        return join(by_place, self.session.threshold, SECRET_BYTES)

    def _refuse_shares(self, name: str) -> None:
        raise StudyError(
            f"Expected shares of the secrets that {name} announced for the secure sum {self.session.name}, found "
            "others: a hospital is at fault, so the round has to be repeated."
        )

    def _refuse_few(self, answered: Collection[str]) -> None:
        if len(answered) < self.session.threshold:
            raise StudyError(
                f"Expected at least {self.session.threshold} hospitals in the secure sum {self.session.name}, found "
                f"{len(answered)}: their sum stays hidden, so repeat the round when more answer."
            )
