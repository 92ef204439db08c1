"""A new certificate for a coordinator whose one expires: of the same authority, so that hospitals need nothing new."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flows.runtimes.flower.keys import (
    CA,
    CA_KEY,
    SERVER,
    SERVER_KEY,
    check_certificate,
    read_certificate,
    read_private,
    server_certificate,
    write_key,
)
from tasks.errors import StudyError


def renew(folder: Path, days: int) -> datetime:
    """Replace the coordinator's certificate by one for the same addresses, and return when it expires (UTC).

    Its key stays, and so does the authority. It expires with the authority at the latest.

    Args:
        folder: that `make_keys` made.
        days: how long the new certificate is valid.

    Raises StudyError if a file is missing or is none, or the authority itself has expired.
    """
    check_certificate(folder / CA)
    authority, former = (x509.load_pem_x509_certificate(read_certificate(folder / name)) for name in (CA, SERVER))
    ca_key, key = (_key(folder / name) for name in (CA_KEY, SERVER_KEY))
    addresses = list(former.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    now = datetime.now(UTC).replace(microsecond=0)
    ends = min(now + timedelta(days=days), authority.not_valid_after_utc)
    made = server_certificate(authority, ca_key, key.public_key(), addresses, now, ends)
    beside = folder / f".{SERVER}.{os.getpid()}.tmp"
    write_key(beside, made.public_bytes(serialization.Encoding.PEM))
    beside.replace(folder / SERVER)
    return ends


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_private(path), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StudyError(f"Expected the private key of a certificate in {path}, found none: make new keys.")
    return key
