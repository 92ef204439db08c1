"""Opens and changes a library's folder; a reader always gets a whole library, even while another process changes it."""

import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import StudyError
from tasks.retrieve.library import Library, read_library
from tasks.store import ROOT, find, revising

TRIES, PAUSE = 50, 0.02
"""Attempts to open a library that another process is replacing, and the seconds between them."""


def open_library(folder: Path) -> Library:
    """Open the library of a finished folder, memory-mapped, after verifying its files by their digests.

    If another process changes the library meanwhile, it is opened again, so the result is one state of the folder.
    Raises StudyError if a file is missing or damaged.
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
    """Replace the library of a finished folder by a changed one, atomically.

    Readers that have the old library open keep it, and later readers get the new one. If this process ends half-way, or
    `change` raises, the old library stays. `change` gets the library in memory.
    """
    with revising(folder.relative_to(ROOT).as_posix()) as revised:
        library = change(read_library(revised.path, mapped=False))
        library.write(revised.path)
        revised.summary = revised.summary | {"cases": len(library.entries)}
