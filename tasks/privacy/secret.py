"""A hospital's secret for its noise, which no stage copies and nothing outside the hospital reads."""

import contextlib
import os
import secrets
from pathlib import Path

from tasks.store import ROOT

NAME = "noise.key"
LENGTH = 32


def noise_secret(hospital: str) -> bytes:
    """The hospital's secret, 32 bytes; the first call makes it, in a file that its owner alone can read."""
    path = ROOT / "hospitals" / hospital / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_once(path, secrets.token_bytes(LENGTH))
    return path.read_bytes()


def _write_once(path: Path, data: bytes) -> None:
    """Write a file whole, unless another process was first."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    beside.touch(mode=0o600)
    beside.write_bytes(data)
    with contextlib.suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()
