"""A party's secret for its noise, which no stage copies and nobody else reads."""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from tasks.store import ROOT

NAME = "noise.key"
COORDINATOR = "coordinator"
"""The party whose secret the noise of a server follows from; its folder stands beside those of the hospitals."""
LENGTH = 32


def noise_secret(area: str) -> bytes:
    """The secret of a party, 32 bytes; the first call makes it, in a file that its owner alone can read.

    `area` is the party's part of the artifacts: `hospitals/<h>`, or COORDINATOR.
    """
    path = ROOT / area / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_once(path, secrets.token_bytes(LENGTH))
    return path.read_bytes()


def keyed_digest(area: str, what: str, data: bytes) -> str:
    """HMAC-SHA-256 of `data`, which nobody without the party's secret can make; `what` tells its uses apart."""
    return hmac.new(noise_secret(area), what.encode() + data, hashlib.sha256).hexdigest()


def _write_once(path: Path, data: bytes) -> None:
    """Write a file whole, unless another process was first."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    beside.touch(mode=0o600)
    beside.write_bytes(data)
    with contextlib.suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()
