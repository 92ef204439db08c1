"""Traces of texts in files, plain or hashed: what a hospital shares holds none of its ids, questions and answers."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

HASHES = ("sha256", "sha1", "md5", "sha512", "blake2b", "blake2s")
HEX, BASE64 = 12, 10
"""Characters of a truncated digest that are recognised: shorter ones come about by chance."""
SHORT = 6
"""Characters below which a text itself is a word like any other; its digests are looked for all the same."""


class Traces:
    """What would give texts away.

    Args:
        texts: ids, questions and answers.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.plain: set[str] = set()
        self.hex: set[str] = set()
        self.base64: set[str] = set()
        self.numbers: set[int] = set()
        for text in {form for each in texts for form in spellings(each)}:
            if len(text) >= SHORT:
                self.plain.add(text)
            for name in HASHES:
                digest = hashlib.new(name, text.encode()).digest()
                self.hex.add(digest.hex()[:HEX])
                for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
                    self.base64.add(encode(digest).decode()[:BASE64])
                for order in ("big", "little"):
                    number = int.from_bytes(digest[:8], order)
                    self.numbers |= {number, number >> 1, number - 2**63, number - 2**64}

    def within(self, text: str) -> set[str]:
        """The traces in a text."""
        found = {plain for plain in self.plain if plain in text}
        for run in re.findall(f"[0-9a-fA-F]{{{HEX},}}", text):
            found |= self.hex & {run[at : at + HEX].lower() for at in range(len(run) - HEX + 1)}
        for run in re.findall(f"[A-Za-z0-9+/_-]{{{BASE64},}}", text):
            found |= self.base64 & {run[at : at + BASE64] for at in range(len(run) - BASE64 + 1)}
        return found | {str(number) for number in self.numbers & set(map(int, re.findall(r"-?\d{8,20}", text)))}

    def found(self, folders: Iterable[Path]) -> dict[str, set[str]]:
        """By file below some folders, the traces in it or in its name."""
        everything = {str(path): self.within("\n".join(texts_of(path))) for path in files(folders)}
        return {path: traces for path, traces in everything.items() if traces}


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
