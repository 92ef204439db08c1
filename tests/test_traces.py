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


def test_a_text_is_found_in_encodings_and_other_cases(tmp_path: Path) -> None:
    long = "Zwetschgenknoedel of Anna"
    traces = Traces([long])
    for form in (
        f"x {long.upper()} y",
        f"x {long.swapcase()} y",
        (b"ab" + long.encode()).hex(),
        *(base64.b64encode(b"x" * shift + long.encode() + b"y").decode() for shift in range(3)),
    ):
        assert traces.within(form), form
    assert not traces.within("Zwetschgen, Knoedel, Anna " + base64.b64encode(b"nobody at all, nowhere").decode())
    for size in (8, 16, 32):
        assert traces.within(hashlib.blake2b(long.encode(), digest_size=size).hexdigest())
    (tmp_path / "a.bin").write_bytes(b"abc" + hashlib.sha256(long.encode()).digest() + b"d")
    assert traces.found([tmp_path])


def test_an_image_is_found_whole_in_part_and_hashed(tmp_path: Path) -> None:
    image = hashlib.shake_256(b"an image").digest(3000)
    traces = Traces(images=[image])
    number = int.from_bytes(hashlib.sha256(hashlib.sha256(image).hexdigest().encode()).digest()[:8], "big") >> 1
    for form in (
        hashlib.sha256(image).hexdigest(),
        hashlib.blake2b(image, digest_size=16).hexdigest(),
        str(number),
        base64.b64encode(image).decode(),
        base64.b64encode(b"a page" + image).decode(),
        image.hex(),
    ):
        assert traces.within(form), form
    for shift in range(8):
        (tmp_path / "a.bin").write_bytes(b"x" * shift + image[900:1600])
        assert traces.found([tmp_path]), shift
    (tmp_path / "a.bin").write_bytes(hashlib.shake_256(b"another").digest(3000))
    assert not traces.found([tmp_path])
