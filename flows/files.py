"""Files that a user asked for, written whole."""

import os
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
