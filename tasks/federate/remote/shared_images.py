"""Which of a hospital's test images other hospitals train on, by digests that none but the two of them can compute.

Each two hospitals agree on keys (X25519, RFC 7748, signed with the keys by which they know each other; HKDF, RFC 5869),
one for each direction. A hospital sends each other one keyed digests (HMAC-SHA-256) of its training images: of their
pixels, and of how they look. The receiver compares them with those of its test images. The coordinator passes on what
looks random to it: without a key it can try no image, and one image has other digests for every pair and direction.

A receiver learns which of its own test images the other one trains on, and how many images that one trains on. It could
try other images too: those that it has, or draws.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.federate.remote.agreement import NotAgreedError
from tasks.records import Case, Image, Split, read_images, read_table
from tasks.records.look import look
from tasks.records.pixels import pixel_digest

LENGTH = 16
"""Bytes of a digest: two of a million images are alike by chance once in 10^26."""


@dataclass(frozen=True)
class Introduction:
    """A hospital's key for one comparison, and its signature, in hexadecimal."""

    public: str
    signature: str


def ids_of(cases: Path, split: Split) -> set[str]:
    """The ids of the images of one split in the folder of a hospital's cases."""
    return {case.image_id for case in read_table(cases / "cases.parquet", Case) if case.split == split}


def images_of(cases: Path, split: Split) -> Iterator[Image]:
    """These images, one at a time."""
    wanted = ids_of(cases, split)
    return (image for image in read_images(cases / "images.parquet") if image.id in wanted)


class ImageComparison:
    """One hospital's part in one comparison.

    Args:
        name: the hospital's.
        identity: the key that signs for it.
        others: public keys of the other hospitals, which came from them and not from the coordinator.
        session: a name that no other comparison has.
    """

    def __init__(self, name: str, identity: Ed25519PrivateKey, others: Mapping[str, bytes], session: str) -> None:
        self._name, self._known, self._session = name, others, session
        self._private = X25519PrivateKey.generate()
        public = self._private.public_key().public_bytes_raw()
        self.introduction = Introduction(public.hex(), identity.sign(_signed(session, name, public)).hex())
        self._agreed: dict[str, bytes] = {}

    def marks(self, introductions: Mapping[str, Introduction], training: Iterable[Image]) -> dict[str, bytes]:
        """What each other hospital gets: the digests of all training images, in no order that tells anything.

        Raises NotAgreedError for a hospital whose key this one has not, or that did not sign.
        """
        self._agreed = {name: self._agree(name, given) for name, given in introductions.items() if name != self._name}
        seen = [(pixel_digest(image.data), look(image.data)) for image in training]
        made = {}
        for name in self._agreed:
            key = self._key(self._name, name)
            digests = {_digest(key, b"pixels", pixels) for pixels, _ in seen}
            digests |= {_digest(key, b"look", shown.bits) for _, shown in seen if shown}
            made[name] = b"".join(sorted(digests))
        return made

    def found(self, marks: Mapping[str, bytes], test: Iterable[Image]) -> dict[str, list[str]]:
        """Ids of the test images that each other hospital trains on, by hospital.

        Raises NotAgreedError for digests that are none, or of a hospital that was not introduced.
        """
        received = {name: self._received(name, given) for name, given in marks.items()}
        alike: dict[str, list[str]] = {name: [] for name in received}
        for image in test:
            pixels, shown = pixel_digest(image.data), look(image.data)
            for name, (key, digests) in received.items():
                likely = shown.likely if shown else ()
                own = [_digest(key, b"pixels", pixels), *(_digest(key, b"look", bits) for bits in likely)]
                if not digests.isdisjoint(own):
                    alike[name].append(image.id)
        return alike

    def _agree(self, name: str, given: Introduction) -> bytes:
        if name not in self._known:
            raise NotAgreedError(
                f"Expected hospitals whose keys {self._name} has, to compare images with, found {name}: get the key "
                "from that hospital, and not from the coordinator."
            )
        try:
            public, signature = bytes.fromhex(given.public), bytes.fromhex(given.signature)
            Ed25519PublicKey.from_public_bytes(self._known[name]).verify(
                signature, _signed(self._session, name, public)
            )
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except (InvalidSignature, ValueError):
            raise NotAgreedError(
                f"Expected a key that {name} signed, to compare images with, found another: compare fingerprints with "
                "that hospital, since somebody may be in its place."
            ) from None

    def _received(self, name: str, marks: bytes) -> tuple[bytes, set[bytes]]:
        if name not in self._agreed or len(marks) % LENGTH:
            raise NotAgreedError("Expected digests of images of hospitals that were introduced, found others.")
        cut = {marks[start : start + LENGTH] for start in range(0, len(marks), LENGTH)}
        return self._key(name, self._name), cut

    def _key(self, sender: str, receiver: str) -> bytes:
        shared = self._agreed[receiver if sender == self._name else sender]
        about = "\n".join(["images", self._session, sender, receiver]).encode()
        return HKDF(SHA256(), length=32, salt=None, info=about).derive(shared)


def _signed(session: str, name: str, public: bytes) -> bytes:
    return b"\n".join([b"comparison of images", session.encode(), name.encode(), public])


def _digest(key: bytes, kind: bytes, value: bytes) -> bytes:
    return hmac.digest(key, kind + value, "sha256")[:LENGTH]
