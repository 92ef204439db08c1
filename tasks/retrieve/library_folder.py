"""The folder of a library that is in use: many processes read it while one changes it, and each finds it whole."""

import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import StudyError
from tasks.retrieve.library import Library, read_library
from tasks.store import ROOT, find, revising

TRIES, PAUSE = 50, 0.02
"""Openings that are tried, and the seconds between, where another process puts a new library in place meanwhile."""


def open_library(folder: Path) -> Library:
    """The library of a finished folder, memory-mapped, its files verified by their digests.

    What is opened is one state of the folder: where another process changes the library meanwhile, it is opened again.
    Raises StudyError where a file is missing or changed.
    """
    path = folder.relative_to(ROOT).as_posix()
    for _ in range(TRIES):
        digest, reason = _digest(path), "it was changed all the time"
        try:
            find(path).verified()
            library = read_library(folder)
        except (OSError, ValueError, RuntimeError) as error:  # FAISS raises RuntimeError
            library, reason = None, " ".join(str(error).split())
        if _digest(path) == digest:
            if library is not None:
                return library
            break
        time.sleep(PAUSE)
    raise StudyError(
        f"Expected a whole library in {folder}, found a damaged one ({reason}): run `fed-rag run` again, which makes "
        "it anew."
    )


def _digest(path: str) -> str | None:
    try:
        return find(path).digest
    except (OSError, ValueError, KeyError):
        return None


def change_library(folder: Path, change: Callable[[Library], Library]) -> None:
    """Put a changed library in the place of a finished folder's, in one step.

    Those who have the old one open keep it; who opens it later gets the new one; a process that ends half-way leaves
    the old one. `change` gets the library in memory. It may raise, and then nothing changes.
    """
    with revising(folder.relative_to(ROOT).as_posix()) as revised:
        library = change(read_library(revised.path, mapped=False))
        library.write(revised.path)
        revised.summary = revised.summary | {"cases": len(library.entries)}
