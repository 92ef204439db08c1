"""Writes files and folders for the user, atomically."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import StudyError


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader finds the old file or the new one.

    Raises StudyError if it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise StudyError(
            f"Cannot write {path}: {error.strerror}; free some space or mend the permissions, and run again."
        ) from None
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(out: Path) -> Iterator[Path]:
    """Write a new folder under a temporary name, which becomes `out` on exit; on any error nothing is left.

    Raises StudyError if `out` exists and is not an empty folder, or cannot be written.
    """
    refuse_filled(out)
    out = out.resolve()
    hidden = out.with_name(f".{out.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        hidden.mkdir(parents=True)
        yield hidden
        hidden.rename(out)  # replaces an empty folder, and fails for any other
    except OSError as error:
        refuse_filled(out)  # another process may have filled it meanwhile
        raise StudyError(
            f"Cannot write {out}: {error.strerror or error}; free some space, mend the permissions, or name another."
        ) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def refuse_filled(out: Path) -> None:
    """Raise StudyError unless `out` is an empty folder or does not exist, so that a new folder can be made there."""
    try:
        found = "a file" if not out.is_dir() and out.exists() else "files in it" if any(out.iterdir()) else None
    except FileNotFoundError:
        found = None
    except NotADirectoryError:
        found = "a file on the way"
    except OSError as error:
        found = f"one that cannot be read ({error.strerror})"
    if found:
        raise StudyError(f"Expected a new or an empty folder, found {found} at {out}: name another.")
