"""The keys of a federation: a certificate authority, the coordinator's certificate, and a key for each hospital.

The coordinator proves who it is by a certificate (TLS), a hospital by its key, which signs each of its calls.
"""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flows.files import writing_folder
from tasks.errors import StudyError

CA, CA_KEY, SERVER, SERVER_KEY = "ca.crt", "ca.key", "server.crt", "server.key"
NODE_KEY = "node.key"
NODES, HANDED_OUT = "nodes", "hospitals"
"""Folders of the hospitals' public keys, and of what each hospital is given."""
CA_DAYS = 3650
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
RESERVED = ("coordinator", "together")
"""Names of parties that are no hospital."""
SOON = timedelta(days=30)


def make_keys(folder: Path, hospitals: Sequence[str], addresses: Sequence[str], days: int) -> datetime:
    """Make all keys of a federation in a new folder, and return when the coordinator's certificate expires (UTC).

    `ca.crt`, `server.crt` and their keys are the coordinator's; `nodes/NAME.pub` registers a hospital; the folder
    `hospitals/NAME` is what that hospital is given. Keys can be read by their owner alone.

    Args:
        folder: a new or an empty folder.
        hospitals: their names, each once.
        addresses: host names and IP addresses at which hospitals reach the coordinator.
        days: how long the coordinator's certificate is valid; the authority's is valid for ten years.

    Raises StudyError for names or addresses that cannot be used, or if the folder has files in it.
    """
    for name in hospitals:
        refuse_name(name)
    if twice := next((name for name in hospitals if hospitals.count(name) > 1), None):
        raise StudyError(f"Expected each hospital once, found {twice} twice: give every hospital a name of its own.")
    names = [_general_name(address) for address in addresses]
    now = datetime.now(UTC).replace(microsecond=0)
    ca_key, server_key = _new_key(), _new_key()
    ca = _authority(ca_key, now)
    server = server_certificate(ca, ca_key, server_key.public_key(), names, now, now + timedelta(days=days))
    certificate = ca.public_bytes(serialization.Encoding.PEM)
    with writing_folder(folder) as made:
        write_key(made / CA, certificate)
        write_key(made / SERVER, server.public_bytes(serialization.Encoding.PEM))
        for place, key in ((CA_KEY, ca_key), (SERVER_KEY, server_key)):
            write_key(made / place, _private(key, serialization.PrivateFormat.PKCS8))
        for name in hospitals:
            key = _new_key()
            write_key(made / HANDED_OUT / name / CA, certificate)
            write_key(made / HANDED_OUT / name / NODE_KEY, _private(key, serialization.PrivateFormat.OpenSSH))
            write_key(made / NODES / f"{name}.pub", _public(key, name))
    return server.not_valid_after_utc


def refuse_name(name: str) -> None:
    """Raise StudyError for a name that no hospital can have: it names folders, on both sides."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise StudyError(
            f"Expected a hospital's name of lower-case letters, digits and hyphens, found {name!r}: name it otherwise."
        )


def read_nodes(folder: Path) -> dict[str, ec.EllipticCurvePublicKey]:
    """The registered hospitals of a coordinator's folder, sorted by name, with their public keys.

    Raises StudyError if there is none, a file is no such key, or two hospitals have the same one.
    """
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    owners: dict[bytes, str] = {}
    for path in sorted((folder / NODES).glob("*.pub")):
        refuse_name(path.stem)
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise StudyError(
                f"Expected a public key of kind ecdsa in {path}, found none: ask the hospital for it again."
            )
        other = owners.setdefault(_raw(key), path.stem)
        if other != path.stem:
            raise StudyError(
                f"Expected a key of its own for each hospital, found the same for {other} and {path.stem} in "
                f"{path.parent}: remove one of them."
            )
        found[path.stem] = key
    if not found:
        raise StudyError(
            f"Expected hospitals' public keys in {folder / NODES}, found none: run `fed-rag coordinator keys`."
        )
    return found


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A hospital's private key. Raises StudyError if the file is none, or can be read by others."""
    data = read_private(path)
    try:
        key = serialization.load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StudyError(
            f"Expected a private key of kind ecdsa without a passphrase in {path}, found none: ask the coordinator for "
            "it again, or make one with `ssh-keygen -t ecdsa -b 384`."
        )
    return key


def read_server(folder: Path) -> tuple[bytes, bytes, bytes]:
    """A coordinator's certificate authority, certificate and key, as PEM.

    Raises StudyError if one is missing, or the certificate has expired.
    """
    check_certificate(folder / SERVER)
    return read_certificate(folder / CA), read_certificate(folder / SERVER), read_private(folder / SERVER_KEY)


def read_certificate(path: Path) -> bytes:
    """A certificate as PEM. Raises StudyError if there is none."""
    data = _read(path)
    try:
        x509.load_pem_x509_certificate(data)
    except ValueError:
        raise StudyError(f"Expected a certificate in {path}, found none: ask the coordinator for it again.") from None
    return data


def check_certificate(path: Path, now: datetime | None = None) -> str | None:
    """A sentence if a certificate expires within 30 days, None if not. Raises StudyError if it is not valid `now`."""
    certificate = x509.load_pem_x509_certificate(read_certificate(path))
    now, ends = now or datetime.now(UTC), certificate.not_valid_after_utc
    if now > ends:
        raise StudyError(
            f"Expected a valid certificate in {path}, found one that expired on {ends:%Y-%m-%d}: renew it with "
            "`fed-rag coordinator renew`; where the authority's own has expired, make new keys."
        )
    if now < certificate.not_valid_before_utc:
        raise StudyError(
            f"Expected a valid certificate in {path}, found one that is valid from {certificate.not_valid_before_utc} "
            "on: set this machine's clock right."
        )
    return f"The certificate in {path} expires on {ends:%Y-%m-%d}." if ends - now < SOON else None


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fed-rag federation")])
    builder = _certificate(name, name, key.public_key(), now, now + timedelta(days=CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA384())


def server_certificate(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    addresses: Sequence[x509.GeneralName],
    now: datetime,
    ends: datetime,
) -> x509.Certificate:
    """A coordinator's certificate for some addresses, valid from `now` to `ends`, signed by an authority."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fed-rag coordinator")])
    builder = _certificate(name, ca.subject, key, now, ends)
    for extension, critical in (
        (x509.SubjectAlternativeName(addresses), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ca_key, hashes.SHA384())


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)


def _usage(**given: bool) -> x509.KeyUsage:
    names = [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**dict.fromkeys(names, False) | given)


def _general_name(address: str) -> x509.GeneralName:
    """An IP address, or else a host's name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", address):
        raise StudyError(f"Expected a host's name or IP address, without a port, found {address!r}: correct --address.")
    return x509.DNSName(address)


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _public(key: ec.EllipticCurvePrivateKey, comment: str) -> bytes:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*form) + f" {comment}\n".encode()


def _raw(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def write_key(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StudyError(
            f"Cannot read {path}: {error.strerror}; name the folder that `fed-rag coordinator keys` made."
        ) from None


def read_private(path: Path) -> bytes:
    """The bytes of a key. Raises StudyError if others can read it, or there is none."""
    data = _read(path)
    if path.stat().st_mode & 0o077:
        raise StudyError(
            f"Expected a key that its owner alone can read, found {path} open to others: run `chmod 600 {path}`."
        )
    return data
