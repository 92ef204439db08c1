"""The manifest of a finished folder: its files with their digests, and what it was made from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from tasks.store.digests import file_digest

MANIFEST = "manifest.json"


class FileEntry(TypedDict):
    """The digest and the size of one file."""

    sha256: str
    bytes: int


class Manifest(TypedDict):
    """The content of `manifest.json`. Manifests of earlier versions lack the fields that need not be there."""

    files: dict[str, FileEntry]
    """By name, relative to the folder."""
    digest: str
    """Of the names and contents of the files."""
    inputs: NotRequired[list[str]]
    """Paths of the folders that it was made from."""
    former_inputs: NotRequired[list[str]]
    """Other paths that held the same input content in earlier requests."""
    leaves: NotRequired[list[str] | None]
    """Kinds of data that leave a hospital in the folder; None where no stage made it."""
    again: NotRequired[str]
    """Id of the flow run that was asked to make it again."""
    summary: dict[str, Any]
    """Counts and notes of the stage."""
    seconds: float
    peak_memory_bytes: int


def check_files(folder: Path) -> str:
    """Check every file of a finished folder against its manifest, and return the folder's digest.

    Raises OSError if a file is missing, ValueError if one has changed or the manifest is invalid.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("digest") != digest_of(files):
        raise ValueError(f"{folder}: the manifest has changed")
    for name, entry in files.items():
        if file_digest(folder / name) != entry["sha256"]:
            raise ValueError(f"{folder}/{name}: the content has changed")
    return str(manifest["digest"])


def digest_of(files: Mapping[str, FileEntry]) -> str:
    """The digest of a folder whose files have these entries."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
