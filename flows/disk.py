"""What the artifacts take on disk, and a warning where that is much."""

import logging
from pathlib import Path

from tasks.store import ROOT

logger = logging.getLogger("fed_rag")


def warn_if_large(most: int | None) -> None:
    """Log a warning if the artifacts hold more bytes than this; nothing without a bound."""
    held = bytes_in(ROOT) if most else 0
    if most and held > most:
        logger.warning(
            "artifacts hold %s, more than artifacts.max_bytes %s: `fed-rag prune` removes old runs",
            size(held),
            size(most),
        )


def bytes_in(folder: Path) -> int:
    """The bytes of all files in a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def size(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
