"""Files and folders that a user asked for, written whole."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import StudyError


def write_text(path: Path, text: str) -> None:
    """Write a file whole: whoever reads it meets the old one or the new one.

    Raises StudyError where it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """A new folder in the making, beside `out`; on leaving, it takes that place, and on any error nothing is left.

    Raises StudyError where something is in that place, but for an empty folder, and where it cannot be written.
    """
    refuse_filled(out)
    out = out.resolve()
    hidden = out.with_name(f".{out.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        hidden.mkdir(parents=True)
        yield hidden
        hidden.rename(out)  # which takes the place of an empty folder, and of no other
    except OSError as error:
        refuse_filled(out)  # it may have been filled meanwhile
        raise StudyError(
            f"Cannot write {out}: {error.strerror or error}; free some space, mend the permissions, or name another."
        ) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def refuse_filled(out: Path) -> None:
    """Raise StudyError where a new folder cannot be made at a place: something is there, but for an empty folder."""
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
