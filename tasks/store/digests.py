"""Digests of files and folders by content."""

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from tasks.errors import StudyError


def tree_digest(folder: Path, without: Collection[str] = ()) -> str:
    """The digest of the names and contents of all files in a folder outside the store, such as a model's folder.

    `without` lists files to ignore, relative to the folder. Raises StudyError if a file cannot be read.
    """
    digest = hashlib.sha256()
    with _unreadable_as_study_error():
        for path in files_below(folder):
            name = path.relative_to(folder).as_posix()
            if name not in without:
                digest.update(os.fsencode(name) + b"\0" + file_digest(path).encode())
    return digest.hexdigest()


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """The files in a folder and its subfolders, sorted by path; links to folders are followed.

    `above` holds the parent folders, so that a circular link is not followed. Raises StudyError if a folder cannot be
    read.
    """
    here, found = folder.resolve(), list[Path]()
    if here in above:
        return found
    with _unreadable_as_study_error():
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                found += files_below(path, (*above, here))
            elif path.is_file():
                found.append(path)
    return found


@contextlib.contextmanager
def _unreadable_as_study_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"Cannot read {error.filename}: {error.strerror}; mend the permissions, or name another."
        ) from None


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
