"""The keys of a federation, verified by `cryptography` as any other program would verify them."""

import ipaddress
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.runtimes.flower.keys import check_certificate, make_keys, read_node_key, read_nodes, read_server
from flows.runtimes.flower.renewal import renew
from tasks.errors import StudyError

ADDRESSES = ["coordinator.example.org", "10.0.0.7", "::1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation") / "keys"
    make_keys(folder, ["north", "south"], ADDRESSES, days=90)
    return folder


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return shutil.copytree(made, tmp_path / "keys")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize(
    "subject",
    [
        x509.DNSName("coordinator.example.org"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.7")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ],
)
def test_the_certificate_is_verified_for_each_address(made: Path, subject: x509.DNSName | x509.IPAddress) -> None:
    policy = PolicyBuilder().store(Store([certificate(made / "ca.crt")]))
    chain = policy.build_server_verifier(subject).verify(certificate(made / "server.crt"), [])
    assert len(chain) == 2


def test_no_other_address_is_verified_no_other_authority_and_no_later_time(made: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", ["north"], ADDRESSES, days=90)
    ours, other = (Store([certificate(folder / "ca.crt")]) for folder in (made, tmp_path / "other"))
    server, subject = certificate(made / "server.crt"), x509.DNSName(ADDRESSES[0])
    verifiers = [
        PolicyBuilder().store(ours).build_server_verifier(x509.DNSName("another.example.org")),
        PolicyBuilder().store(other).build_server_verifier(subject),
        PolicyBuilder().store(ours).time(datetime.now() + timedelta(days=91)).build_server_verifier(subject),
    ]
    for verifier in verifiers:
        with pytest.raises(VerificationError):
            verifier.verify(server, [])


def test_keys_belong_to_their_certificates_and_are_their_owners_alone(made: Path) -> None:
    for name in ("ca", "server"):
        key = load_pem_private_key((made / f"{name}.key").read_bytes(), None)
        assert key.public_key() == certificate(made / f"{name}.crt").public_key()
    nodes = read_nodes(made)
    assert list(nodes) == ["north", "south"]
    for name, public in nodes.items():
        given = made / "hospitals" / name
        assert load_ssh_private_key((given / "node.key").read_bytes(), None).public_key() == public
        assert (given / "ca.crt").read_bytes() == (made / "ca.crt").read_bytes()
        assert read_node_key(given / "node.key").public_key() == public
    assert {path.stat().st_mode & 0o777 for path in made.rglob("*") if path.is_file()} == {0o600}
    assert read_server(made)[1] == (made / "server.crt").read_bytes()


def test_an_expired_certificate_is_refused_by_its_name(made: Path) -> None:
    path, ends = made / "server.crt", certificate(made / "server.crt").not_valid_after_utc
    assert check_certificate(path) is None
    assert "expires on" in str(check_certificate(path, ends - timedelta(days=3)))
    with pytest.raises(StudyError, match=rf"{path}, found one that expired on {ends:%Y-%m-%d}"):
        check_certificate(path, ends + timedelta(seconds=1))
    with pytest.raises(StudyError, match="set this machine's clock right"):
        check_certificate(path, datetime.now(UTC) - timedelta(days=1))


def test_a_renewed_certificate_is_of_the_same_authority_and_addresses(keys: Path) -> None:
    before, key = certificate(keys / "server.crt"), (keys / "server.key").read_bytes()
    words = ["coordinator", "renew", str(keys), "--days", "400"]
    printed = " ".join(CliRunner().invoke(cli.app, words, env={"COLUMNS": "4000", "TERM": "dumb"}).output.split())
    after = certificate(keys / "server.crt")
    assert f"{datetime.now(UTC) + timedelta(days=400):%Y-%m-%d}" in printed
    assert before.serial_number != after.serial_number and before.public_key() == after.public_key()
    assert (keys / "server.key").read_bytes() == key and (keys / "server.crt").stat().st_mode & 0o777 == 0o600
    policy = PolicyBuilder().store(Store([certificate(keys / "ca.crt")])).time(datetime.now() + timedelta(days=399))
    for subject in (x509.DNSName(ADDRESSES[0]), x509.IPAddress(ipaddress.ip_address(ADDRESSES[1]))):
        policy.build_server_verifier(subject).verify(after, [])
    assert renew(keys, days=9999) == certificate(keys / "ca.crt").not_valid_after_utc
    (keys / "ca.key").write_text("none")
    with pytest.raises(StudyError, match=r"private key of a certificate in .*ca\.key"):
        renew(keys, days=9)
    assert check_certificate(keys / "server.crt") is None


def test_nothing_is_overwritten(keys: Path) -> None:
    before = (keys / "ca.key").read_bytes()
    with pytest.raises(StudyError, match="new or an empty folder"):
        make_keys(keys, ["north"], ADDRESSES, days=90)
    assert (keys / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("hospitals", "addresses", "said"),
    [
        (["north", "north"], ["localhost"], "found north twice"),
        (["North"], ["localhost"], "found 'North'"),
        (["../north"], ["localhost"], "found '../north'"),
        (["coordinator"], ["localhost"], "found 'coordinator'"),
        (["north"], ["localhost:9092"], "without a port, found 'localhost:9092'"),
    ],
)
def test_names_that_cannot_be_used_are_refused(
    hospitals: list[str], addresses: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=said):
        make_keys(tmp_path / "keys", hospitals, addresses, days=90)
    assert not list(tmp_path.iterdir())


def test_what_is_no_key_or_open_to_others_is_refused(keys: Path) -> None:
    key = keys / "hospitals/north/node.key"
    key.chmod(0o640)
    with pytest.raises(StudyError, match=f"chmod 600 {key}"):
        read_node_key(key)
    key.chmod(0o600)
    key.write_text("no key")
    with pytest.raises(StudyError, match="private key of kind ecdsa"):
        read_node_key(key)
    (keys / "nodes/south.pub").write_bytes((keys / "nodes/north.pub").read_bytes())
    with pytest.raises(StudyError, match="the same for north and south"):
        read_nodes(keys)
    (keys / "nodes/north.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(StudyError, match=r"ecdsa in .*north\.pub"):
        read_nodes(keys)
    shutil.rmtree(keys / "nodes")
    with pytest.raises(StudyError, match="found none"):
        read_nodes(keys)
    (keys / "server.key").unlink()
    with pytest.raises(StudyError, match=r"Cannot read .*server\.key"):
        read_server(keys)


def test_the_command_tells_when_the_certificate_expires(tmp_path: Path) -> None:
    words = [
        "coordinator",
        "keys",
        str(tmp_path / "keys"),
        "--hospital",
        "north",
        "--address",
        "localhost",
        "--days",
        "2",
    ]
    printed = " ".join(CliRunner().invoke(cli.app, words, env={"COLUMNS": "4000", "TERM": "dumb"}).output.split())
    assert f"expires on {datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}" in printed
    assert str(tmp_path / "keys/hospitals/north") in printed
