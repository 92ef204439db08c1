"""The keys that sign in secure sums: a hospital's own, and those of the others, which never come from a coordinator.

They are Ed25519 keys in OpenSSH's format, so that `ssh-keygen` makes them too, and shows their fingerprints.
"""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flows.runtimes.flower.keys import read_private, refuse_name, write_key
from tasks.errors import StudyError
from tasks.federate.remote.agreement import NotAgreedError
from tasks.settings.hospital import SecureSumSettings

MAKE = 'make one with `ssh-keygen -t ed25519 -N "" -f sum.key`'


def make_sum_key(path: Path, name: str) -> None:
    """Make a hospital's key for secure sums, unless it is there; its public part beside it ends in `.pub`."""
    if path.exists():
        return
    key = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    write_key(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_key(path.with_name(f"{path.name}.pub"), public + f" {name}\n".encode())


def read_sum_key(path: Path) -> Ed25519PrivateKey:
    """A hospital's key for secure sums. Raises StudyError if the file is none, or can be read by others."""
    if not path.exists():
        raise StudyError(f"Expected this hospital's key for secure sums in {path}, found none: {MAKE}.")
    try:
        key = serialization.load_ssh_private_key(read_private(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise StudyError(f"Expected a private key of kind ed25519 without a passphrase in {path}, found none: {MAKE}.")
    return key


def read_others(folder: Path) -> dict[str, bytes]:
    """Public keys of the other hospitals, 32 bytes each, by the names of their files `NAME.pub`.

    Raises StudyError if a file is no such key, or two hospitals have the same one.
    """
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.pub")):
        refuse_name(path.stem)
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise StudyError(f"Expected a public key of kind ed25519 in {path}, found none: ask that hospital for it.")
        if key.public_bytes_raw() in found.values():
            raise StudyError(f"Expected a key of its own for each hospital, found one twice: {path} is the second.")
        found[path.stem] = key.public_bytes_raw()
    return found


def own_keys(settings: SecureSumSettings, why: str) -> tuple[Ed25519PrivateKey, dict[str, bytes]]:
    """This hospital's key, and the public ones of the others. Raises NotAgreedError if either is missing."""
    others = read_others(settings.others)
    if not settings.key.exists() or not others:
        raise NotAgreedError(
            f"Expected its own key and those of the other hospitals {why}, found none: exchange them as "
            "docs/deployment.md says."
        )
    return read_sum_key(settings.key), others


def fingerprint(public: bytes) -> str:
    """The fingerprint of a public key, as `ssh-keygen -lf` prints it: for comparing by telephone."""
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", public))
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def fingerprints(name: str, settings: SecureSumSettings) -> dict[str, str]:
    """The fingerprints of all keys that a hospital has for secure sums, by hospital, its own first; {} without one.

    Raises StudyError as `read_sum_key` and `read_others` do.
    """
    if not settings.key.exists():
        return {}
    keys = {name: read_sum_key(settings.key).public_key().public_bytes_raw()} | read_others(settings.others)
    return {hospital: fingerprint(key) for hospital, key in keys.items()}
