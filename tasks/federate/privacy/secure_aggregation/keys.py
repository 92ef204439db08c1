"""What hospitals make of their keys: masks, sealed boxes and signatures, all by `cryptography`."""

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.fixed_point import Words
from tasks.federate.privacy.secure_aggregation.messages import Session

SECRET_BYTES = 32
CHUNK = 2**17
"""Words of a mask that are in memory at once: 1 MiB."""


def agreed(own: bytes, other: bytes, purpose: bytes) -> bytes:
    """The key of 32 bytes that two hospitals share for one purpose: X25519, then HKDF-SHA256.

    Args:
        own: a private key.
        other: the other's public key.
        purpose: tells keys of the same pair apart.

    Raises StudyError if the public key is none.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(own).exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise StudyError("Expected a public key of X25519, found other bytes: its hospital is at fault.") from None
    return derived(shared, purpose)


def derived(secret: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes made of a secret, by HKDF-SHA256."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)


def pair_key(session: Session, own: bytes, other: bytes, one_name: str, other_name: str) -> bytes:
    """The key of the mask that two hospitals share, from the private key of one and the public key of the other."""
    return agreed(own, other, session.about("pair", *sorted((one_name, other_name))))


def own_key(session: Session, seed: bytes) -> bytes:
    """The key of a hospital's own mask, of its seed."""
    return derived(seed, session.about("own"))


def sign(one: str, other: str) -> int:
    """The sign with which `one` adds the mask that it shares with `other`: opposite to that of `other`."""
    return 1 if one < other else -1


def add_mask(total: Words, key: bytes, sign: int) -> None:
    """Add the key's mask to words `(n,)`, or subtract it where `sign` is -1. In place, modulo 2^64.

    The mask is the stream of AES-256 in counter mode. Each key makes one mask, so the counter begins at 0.
    """
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = memoryview(bytes(8 * CHUNK))
    for start in range(0, len(total), CHUNK):
        part = total[start : start + CHUNK]
        mask = np.frombuffer(stream.update(zeros[: 8 * len(part)]), dtype="<u8")
        if sign > 0:
            part += mask
        else:
            part -= mask


def seal(key: bytes, plain: bytes, about: bytes) -> bytes:
    """Encrypt and authenticate (ChaCha20-Poly1305). A key seals one message, so the nonce may be 0."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), plain, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """What was sealed. Raises StudyError if it was sealed by another key, about something else, or was changed."""
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, about)
    except InvalidTag:
        raise StudyError(
            "Expected shares that another hospital sealed for this one, found other bytes: the coordinator is at fault."
        ) from None


def signed_by(public: bytes, signature: bytes, content: bytes) -> bool:
    """Whether a signature of some content is that of an Ed25519 public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
