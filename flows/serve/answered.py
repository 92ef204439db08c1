"""Finds answers that were given already, by the keys of their questions, in the hospital's log."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from flows.serve.asked_log import LOG, Entry
from tasks.store import ROOT

REMEMBERED = 20_000
"""How many of the last questions with a key are known."""


class Answered:
    """The last answers to questions with a key. The caller holds `alone_at` in each call.

    The log is the only truth: so an answer counts as given if its line is whole on the disk, whatever became of the
    process that wrote it, and it was given by any process of this hospital.
    """

    def __init__(self, hospital: str) -> None:
        self._path = ROOT / "hospitals" / hospital / LOG
        self._file, self._read = 0, 0
        self._found: OrderedDict[str, Entry] = OrderedDict()

    def find(self, keys: Iterable[str]) -> dict[str, Entry]:
        """The entries of those keys that were answered."""
        self._refresh()
        return {key: self._found[key] for key in keys if key in self._found}

    def _refresh(self) -> None:
        """Read what was added; the whole log if it was written anew, as forgetting does."""
        try:
            state = self._path.stat()
        except FileNotFoundError:
            return
        if state.st_ino != self._file or state.st_size < self._read:
            self._file, self._read = state.st_ino, 0
            self._found.clear()
        if state.st_size == self._read:
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._remember(line)

    def _remember(self, line: bytes) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:  # a process was killed while it wrote
            return
        if row.get("key") and row["state"] == "answered":
            self._found[row["key"]] = Entry(
                **row | {"shown": tuple(row["shown"]), "similarities": tuple(row["similarities"])}
            )
            while len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
