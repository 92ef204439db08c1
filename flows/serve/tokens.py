"""Tokens of those who may ask: only their sha256 is stored, each with a name for the hospital's log."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tasks.errors import StudyError

LINE = re.compile(r"(?:(?P<name>[\w.@-]+):)?(?P<digest>[0-9a-f]{64})")


class Tokens(Protocol):
    """What knows the tokens."""

    def known(self) -> Mapping[str, str]:
        """The sha256 of each valid token, in hexadecimal, by name. Raises StudyError if they cannot be read."""
        ...


class OneToken:
    """A token that lives as long as the process."""

    def __init__(self, token: str) -> None:
        self._known = {"started": digest_of(token)}

    def known(self) -> Mapping[str, str]:
        """As `Tokens.known`."""
        return self._known


class TokenFile:
    """Tokens of a file, which is read again whenever it changes: so tokens are added and withdrawn without a restart.

    While the file is unreadable nobody is let in: an earlier list could hold a token that was withdrawn.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, int, int] | None = None
        self._known: Mapping[str, str] = {}

    def known(self) -> Mapping[str, str]:
        """As `Tokens.known`."""
        try:
            found = self._path.stat()
            state = (found.st_mtime_ns, found.st_size, found.st_ino)
            if state != self._state:
                self._known, self._state = parse(self._path.read_text(encoding="utf-8"), str(self._path)), state
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise StudyError(
                f"Expected --tokens to be a file of token hashes, found {self._path} ({reason}): write one hash a line."
            ) from None
        return self._known


def parse(text: str, where: str) -> dict[str, str]:
    """The digests of a token file by name; a line without a name is named by its number.

    Empty lines and lines that begin with `#` are skipped. Raises StudyError for any other line, or for a name that
    occurs twice, or if there is no token.
    """
    known: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        name = (match["name"] or f"line-{number}") if match else ""
        if not match or name in known:
            found = "a second one of the same name" if match else "something else"
            raise StudyError(
                f"Expected NAME:SHA256 or SHA256 in {where}, row {number}, found {found}: make a hash with "
                "`printf %s TOKEN | sha256sum`."
            )
        known[name] = match["digest"]
    if not known:
        raise StudyError(f"Expected at least one token hash in {where}, found none: write NAME:SHA256 on a line.")
    return known


def digest_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def name_of(token: str, known: Mapping[str, str]) -> str | None:
    """The name of a token; None if it is not known. The time does not depend on how much of a token is right."""
    given, found = digest_of(token), None
    for name, digest in known.items():
        if hmac.compare_digest(given, digest):
            found = name
    return found
