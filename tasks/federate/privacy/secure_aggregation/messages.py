"""The messages of a secure sum, as frozen records with a form in bytes, and what all parties know beforehand.

The form in bytes is a JSON document, in which `{"bytes": n}` stands for n of the bytes behind it. So a masked update is
not inflated by a text form of it.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.errors import StudyError

Key = Annotated[bytes, Field(min_length=32, max_length=32)]
Signature = Annotated[bytes, Field(min_length=64, max_length=64)]


class Message(BaseModel):
    """A frozen record that can be sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Session(Message):
    """What all parties know before a sum begins, and sign with everything they say.

    Raises StudyError if the threshold does not fit the hospitals.
    """

    name: str
    """Used once: two sums of the same name may reveal a hospital's masks. Each hospital sees to it."""
    hospitals: dict[str, Key]
    """Ed25519 public keys by hospital. They are exchanged beforehand, and not through the coordinator."""
    threshold: int
    """Fewest hospitals whose sum may be unmasked."""
    length: int = Field(ge=1)
    """Numbers in each hospital's vector."""
    bits: int = Field(32, ge=0, le=52)
    """Binary places of these numbers."""

    @model_validator(mode="after")
    def _needs_a_majority(self) -> Self:
        """Two sets of at least `threshold` hospitals share one, which signs only one set of survivors."""
        count = len(self.hospitals)
        if count < 2:
            raise StudyError(f"Expected at least 2 hospitals for a secure sum, found {count}: it would be no sum.")
        if not majority(count) <= self.threshold <= count:
            raise StudyError(
                f"Expected a threshold from {majority(count)} to {count} for a secure sum of {count} hospitals, found "
                f"{self.threshold}: less than a majority lets a coordinator unmask single updates."
            )
        return self

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that tell this session from all others."""
        return hashlib.sha256(pack(self)).digest()

    @cached_property
    def places(self) -> dict[str, int]:
        """Each hospital's place in secret sharing, from 1."""
        return {name: place for place, name in enumerate(sorted(self.hospitals), 1)}

    def about(self, what: str, *parts: str | bytes) -> bytes:
        """What is signed or what a key is for: its kind, this session, and its parts, each in one way only."""
        plain = [part.hex() if isinstance(part, bytes) else part for part in parts]
        return json.dumps(["fed-rag secure aggregation", what, self.digest.hex(), *plain]).encode()


def majority(hospitals: int) -> int:
    """The lowest threshold that is safe against a coordinator that lies while all hospitals are honest.

    With `c` hospitals that help such a coordinator, more than `(hospitals + c) / 2` are needed.
    """
    return hospitals // 2 + 1


class PublicKeys(Message):
    """Step 1, from a hospital: its public keys for this sum."""

    hospital: str
    masking: Key
    """X25519 key that the masks of pairs follow from."""
    sealing: Key
    """X25519 key that its shares are encrypted with."""
    seed_digest: Key
    """SHA-256 of the seed of its own mask, so that wrong shares of it are noticed."""
    signature: Signature

    def signed(self, session: Session) -> bytes:
        """What the hospital signs."""
        return session.about("keys", self.hospital, self.masking, self.sealing, self.seed_digest)


class KeyList(Message):
    """Step 1, to all: the keys of the hospitals that answered."""

    keys: tuple[PublicKeys, ...]


class SealedShares(Message):
    """Step 2, from a hospital: shares of its two secrets, sealed for each other hospital."""

    hospital: str
    sealed: dict[str, bytes]
    """By receiver."""


class Delivery(Message):
    """Step 2, to one hospital: the shares that others sealed for it."""

    sealed: dict[str, bytes]
    """By sender."""


class MaskedUpdate(Message):
    """Step 3, from a hospital: its masked vector."""

    hospital: str
    words: bytes
    """Eight bytes a number, the lowest first."""


class Survivors(Message):
    """Step 4, to all: the hospitals whose masked update came."""

    hospitals: tuple[str, ...]

    def signed(self, session: Session) -> bytes:
        """What a hospital signs that agrees."""
        return session.about("survivors", *sorted(self.hospitals))


class Agreement(Message):
    """Step 4, from a hospital: its signature of the survivors."""

    hospital: str
    signature: Signature


class Agreements(Message):
    """Step 5, to all: who agreed to the survivors."""

    signatures: dict[str, Signature]
    """By hospital."""


class Revealed(Message):
    """Step 5, from a hospital: its shares of what unmasks the sum."""

    hospital: str
    masking: dict[str, bytes]
    """Shares of the masking keys of hospitals that dropped out."""
    seeds: dict[str, bytes]
    """Shares of the seeds of the survivors' own masks."""


MESSAGES: Mapping[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        *(Session, PublicKeys, KeyList, SealedShares, Delivery),
        *(MaskedUpdate, Survivors, Agreement, Agreements, Revealed),
    )
}


def pack(message: Message) -> bytes:
    """The message in bytes; the same message always has the same bytes."""
    blobs: list[bytes] = []
    head = json.dumps([type(message).__name__, _without_bytes(message.model_dump(), blobs)]).encode()
    return b"".join([len(head).to_bytes(4, "big"), head, *blobs])


def _without_bytes(value: Any, blobs: list[bytes]) -> Any:
    """A value with the length in place of each of its bytes, which are added to the blobs."""
    if isinstance(value, bytes):
        blobs.append(value)
        return {"bytes": len(value)}
    if isinstance(value, dict):
        return {"map": [[name, _without_bytes(each, blobs)] for name, each in sorted(value.items())]}
    return [_without_bytes(each, blobs) for each in value] if isinstance(value, tuple) else value


def _with_bytes(value: Any, blobs: BytesIO) -> Any:
    """The inverse: bytes are read where their length is."""
    if isinstance(value, dict) and "bytes" in value:
        return blobs.read(value["bytes"])
    if isinstance(value, dict):
        return {name: _with_bytes(each, blobs) for name, each in value["map"]}
    return tuple(_with_bytes(each, blobs) for each in value) if isinstance(value, list) else value


def unpack(data: bytes) -> Message:
    """The message of some bytes. Raises StudyError if they are none."""
    source = BytesIO(data)
    size = int.from_bytes(source.read(4), "big")
    try:
        kind, fields = json.loads(source.read(size))
        message = MESSAGES[kind].model_validate(_with_bytes(fields, source))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StudyError("Expected a message of a secure sum, found other bytes: its sender is at fault.") from None
    if pack(message) != data:
        raise StudyError("Expected one message of a secure sum, found bytes beside it: its sender is at fault.")
    return message
