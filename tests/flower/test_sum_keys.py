"""Keys for secure sums: made once, read by `ssh-keygen` as by us, and refused where they are none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from flows.sum_keys import fingerprints, make_sum_key, read_others, read_sum_key
from tasks.errors import StudyError
from tasks.settings.hospital import SecureSumSettings


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """North's folder, with the key of south among those of others."""
    for name in ("north", "south"):
        make_sum_key(tmp_path / name / "sum.key", name)
    (tmp_path / "north/others").mkdir()
    shutil.copy(tmp_path / "south/sum.key.pub", tmp_path / "north/others/south.pub")
    return tmp_path / "north"


def test_a_key_is_made_once_and_its_public_part_is_what_others_read(place: Path) -> None:
    before = (place / "sum.key").read_bytes()
    make_sum_key(place / "sum.key", "north")
    assert (place / "sum.key").read_bytes() == before
    assert {path.stat().st_mode & 0o777 for path in place.glob("sum.*")} == {0o600}
    theirs = read_sum_key(place.parent / "south/sum.key").public_key().public_bytes_raw()
    assert read_others(place / "others") == {"south": theirs}
    assert read_others(place / "none") == {}


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_fingerprints_are_those_of_ssh_keygen(place: Path) -> None:
    settings = SecureSumSettings(key=place / "sum.key", others=place / "others")
    shown = [
        subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout.split()[1]
        for path in (place / "sum.key.pub", place / "others/south.pub")
    ]
    assert fingerprints("north", settings) == dict(zip(("north", "south"), shown, strict=True))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "other.key")], check=True)
    assert read_sum_key(place / "other.key")
    assert fingerprints("north", SecureSumSettings(key=place / "none")) == {}


def test_what_is_no_key_is_refused(place: Path) -> None:
    shutil.copy(place / "others/south.pub", place / "others/west.pub")
    with pytest.raises(StudyError, match=r"one twice: .*west\.pub is the second"):
        read_others(place / "others")
    (place / "others/west.pub").write_text("none")
    with pytest.raises(StudyError, match=r"kind ed25519 in .*west\.pub"):
        read_others(place / "others")
    (place / "others/west.pub").rename(place / "others/West.pub")
    with pytest.raises(StudyError, match="found 'West'"):
        read_others(place / "others")
    (place / "sum.key").chmod(0o644)
    with pytest.raises(StudyError, match="chmod 600"):
        read_sum_key(place / "sum.key")
    (place / "sum.key").chmod(0o600)
    (place / "sum.key").write_text("none")
    with pytest.raises(StudyError, match=r"private key of kind ed25519 .*`ssh-keygen -t ed25519"):
        read_sum_key(place / "sum.key")
    with pytest.raises(StudyError, match=r"key for secure sums in .*none\.key, found none"):
        read_sum_key(place / "none.key")
