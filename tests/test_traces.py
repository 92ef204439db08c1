"""The search for traces finds every form that it is meant to find, and nothing in what holds none."""

import base64
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from traces import HASHES, Traces

TEXT = "Phantom: site-1, 0007"
TRACES = Traces([TEXT, "no"])


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("text", [TEXT, TEXT.lower(), TEXT.upper(), "phantom site 1 0007", "no", "NO"])
def test_every_form_is_found(name: str, text: str, tmp_path: Path) -> None:
    digest = hashlib.new(name, text.encode()).digest()
    forms = (
        digest.hex()[:16],
        digest.hex().upper(),
        f"key-{digest.hex()[:12]}.json",
        base64.b64encode(digest).decode()[:10],
        base64.urlsafe_b64encode(digest).decode(),
        str(int.from_bytes(digest[:8], "big") >> 1),
        str(int.from_bytes(digest[:8], "little")),
    )
    for form in forms:
        assert TRACES.within(f'{{"case": "{form}"}}'), form
    pq.write_table(pa.table({"case": [1, int.from_bytes(digest[:8], "big") >> 1]}), tmp_path / "a.parquet")
    (tmp_path / "b.db").write_bytes(b"\x00\xff" + forms[0].encode() + b"\x00")
    assert len(TRACES.found([tmp_path])) == 2


def test_the_text_itself_is_found_and_nothing_else(tmp_path: Path) -> None:
    assert TRACES.within(f"x{TEXT.lower()}x")
    assert not TRACES.within('{"n": 123456789, "digest": "' + hashlib.sha256(b"another").hexdigest() + '", "a": "no"}')
    (tmp_path / f"{TEXT}.json").write_text("{}")
    assert TRACES.found([tmp_path])
