"""Traces of texts and images in files, plain or hashed: what a hospital shares holds none of those of its cases."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HASHES = ("sha256", "sha1", "md5", "sha512", "blake2b", "blake2s")
SIZES = (8, 16, 32)
"""Of BLAKE2's digests, which differ in more than their length."""
HEX, BASE64 = 12, 10
"""Characters of a truncated digest that are recognised: shorter ones come about by chance."""
SHORT = 6
"""Characters below which a text itself is a word like any other; its digests are looked for all the same."""
RAW = 16
"""Bytes of an image's content that are looked for in encodings; of bytes as they are, eight are enough."""


class Traces:
    """What would give texts and images away.

    Args:
        texts: ids, questions and answers.
        images: the bytes of image files, or of their pixels.
    """

    def __init__(self, texts: Iterable[str] = (), images: Iterable[bytes] = ()) -> None:
        self.plain: set[str] = set()
        self.raw: set[int] = set()
        self.hex: set[str] = set()
        self.base64: set[str] = set()
        self.numbers: set[int] = set()
        for text in {form for each in texts for form in spellings(each)}:
            if len(text) >= SHORT:
                self.plain.add(text.casefold())
            self._hashed(text.encode())
            self._encoded(text.encode())
        for image in images:
            self._hashed(image)
            for at in (len(image) // 3, len(image) // 2):  # past what files of a kind begin with
                part = image[at : at + RAW]
                if len(set(part)) > RAW // 2:  # no flat ground
                    self.raw.add(word(part))
                    self._encoded(part)

    def _hashed(self, data: bytes) -> None:
        digests = [hashlib.new(name, data).digest() for name in HASHES]
        digests += [hashlib.blake2b(data, digest_size=size).digest() for size in SIZES]
        for digest in digests:
            self.hex.add(digest.hex()[:HEX])
            self.raw.add(word(digest))
            for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
                self.base64.add(encode(digest).decode()[:BASE64])
            for each in (digest, hashlib.sha256(digest.hex().encode()).digest()):  # a digest's own is a number, too
                for order in ("big", "little"):
                    number = int.from_bytes(each[:8], order)
                    self.numbers |= {number, number >> 1, number - 2**63, number - 2**64}

    def _encoded(self, data: bytes) -> None:
        """The data itself, from wherever in three bytes it begins."""
        if len(data) >= BASE64:
            self.hex.add(data.hex()[:HEX])
            for shift in range(3):
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    self.base64.add(encode(data[shift:]).decode()[:BASE64])

    def within(self, text: str) -> set[str]:
        """The traces in a text."""
        folded = text.casefold()
        found = {plain for plain in self.plain if plain in folded}
        for run in re.findall(f"[0-9a-fA-F]{{{HEX},}}", text):
            found |= self.hex & {run[at : at + HEX].lower() for at in range(len(run) - HEX + 1)}
        for run in re.findall(f"[A-Za-z0-9+/_-]{{{BASE64},}}", text):
            found |= self.base64 & {run[at : at + BASE64] for at in range(len(run) - BASE64 + 1)}
        return found | {str(number) for number in self.numbers & set(map(int, re.findall(r"-?\d{8,20}", text)))}

    def found(self, folders: Iterable[Path]) -> dict[str, set[str]]:
        """By file below some folders, the traces in it or in its name."""
        everything = {
            str(path): self.within("\n".join(texts_of(path))) | self._raw_within(path.read_bytes())
            for path in files(folders)
        }
        return {path: traces for path, traces in everything.items() if traces}

    def _raw_within(self, data: bytes) -> set[str]:
        known, found = np.array(sorted(self.raw), np.uint64), set[str]()
        for shift in range(8):
            words = np.frombuffer(data, "<u8", (len(data) - shift) // 8, shift) if len(data) >= shift + 8 else known[:0]
            found |= {f"{each:016x}" for each in words[np.isin(words, known)].tolist()}
        return found


def word(data: bytes) -> int:
    """The first eight bytes as a number."""
    return int.from_bytes(data[:8], "little")


def spellings(text: str) -> set[str]:
    """A text as it may have been written before it was hashed."""
    bare = " ".join(re.sub(r"[^\w\s]", " ", text).split())
    written = (text, text.strip(), bare)
    return {form for each in written for form in (each, each.lower(), each.upper(), each.casefold()) if form}


def files(folders: Iterable[Path]) -> Iterator[Path]:
    """All files below some folders."""
    yield from (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())


def texts_of(path: Path) -> Iterator[str]:
    """A file's name and content; a table's values, which Parquet compresses."""
    yield str(path.name)
    if path.suffix == ".parquet":
        yield json.dumps(pq.read_table(path).to_pylist(), default=str)
    else:
        yield path.read_bytes().decode("utf-8", errors="ignore")
