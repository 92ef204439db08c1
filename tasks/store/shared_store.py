"""Finished folders in an object store that several machines share (`artifacts.root`), by fsspec.

Each machine works in its own artifacts folder, which holds what it made or needed. A finished folder goes to the store
before it gets its name on the machine that made it, and is fetched where another machine needs it.

An object store cannot rename a folder. So a folder's files go below `PATH/.DIGEST/`, where nobody looks for them yet.
Then its manifest, one object, takes the place of `PATH/manifest.json`: a reader finds the former folder or the new one,
whole. A writer that is killed before leaves files that no manifest names; the next one writes the same names.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from tasks.errors import StudyError
from tasks.store.manifest import MANIFEST, Manifest, check_files
from tasks.store.names import inside

NAME = ".root"
"""The file in the artifacts folder that names the store, for every command that works in this folder."""


@dataclass(frozen=True)
class SharedStore:
    """The store at an fsspec URL, such as `s3://bucket/study`. All methods raise StudyError if it cannot be used."""

    url: str

    def put(self, folder: Path, path: str) -> None:
        """Keep a folder that has its manifest under a path relative to the artifacts; the former one is removed."""
        manifest = (folder / MANIFEST).read_bytes()
        described = json.loads(manifest)
        former, kept = self.digest(path), f".{described['digest']}"
        with self._reached() as (files, top):
            for name in described["files"]:
                files.put_file(str(folder / name), f"{top}/{path}/{kept}/{name}")
            files.pipe_file(f"{top}/{path}/{MANIFEST}", manifest)
            if former and f".{former}" != kept:  # and no other: another machine may be writing its own
                self._remove_files(files, f"{top}/{path}", f".{former}")

    def digest(self, path: str) -> str:
        """The digest of the folder at a path; empty if there is none."""
        described = self._manifest(path)
        return described["digest"] if described else ""

    def fetch(self, path: str, to: Path) -> bool:
        """Copy the folder at a path to an empty folder of this machine; returns whether it is there, and whole.

        Raises StudyError if a name in its manifest leads out of the folder.
        """
        described = self._manifest(path)
        if described is None:
            return False
        with self._reached() as (files, top):
            for name in described["files"]:
                (to / inside(name)).parent.mkdir(parents=True, exist_ok=True)
                try:
                    files.get_file(f"{top}/{path}/.{described['digest']}/{name}", str(to / name))
                except FileNotFoundError:  # another machine has just replaced or removed the folder
                    return False
        (to / MANIFEST).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            return check_files(to) == described["digest"]
        except ValueError:
            return False

    def _manifest(self, path: str) -> Manifest | None:
        """The manifest of the folder at a path; None if there is none, or what is there is none."""
        try:
            found = json.loads(self.read(f"{path}/{MANIFEST}") or b"null")
        except ValueError:
            return None
        whole = (
            isinstance(found, dict) and isinstance(found.get("files"), dict) and isinstance(found.get("digest"), str)
        )
        return cast(Manifest, found) if whole else None

    def remove(self, path: str) -> None:
        """Remove the folder at a path, if there is one: its manifest first, so that nobody finds half of it."""
        with self._reached() as (files, top):
            with contextlib.suppress(FileNotFoundError):
                files.rm_file(f"{top}/{path}/{MANIFEST}")
            self._remove_files(files, f"{top}/{path}", ".*")

    def paths(self, below: str = "") -> list[str]:
        """Paths of all finished folders below a path."""
        with self._reached() as (files, top):
            found = (PurePosixPath(each).relative_to(top) for each in files.find(f"{top}/{below}".rstrip("/")))
            return sorted(
                each.parent.as_posix()
                for each in found
                if each.name == MANIFEST and not any(part.startswith(".") for part in each.parts)
            )

    def files(self, pattern: str) -> list[str]:
        """Names of the files that a glob pattern finds."""
        with self._reached() as (files, top):
            found = sorted(files.glob(f"{top}/{pattern}"))
            return [PurePosixPath(each).relative_to(top).as_posix() for each in found]

    def read(self, name: str) -> bytes | None:
        """The content of one file; None if there is none."""
        with self._reached() as (files, top):
            try:
                return bytes(files.cat_file(f"{top}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write one file, in place of a former one."""
        with self._reached() as (files, top):
            files.pipe_file(f"{top}/{name}", data)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it; its errors, of whatever kind, become one sentence."""
        try:
            yield _open(self.url)
        except StudyError:
            raise
        except Exception as error:  # each file system of fsspec raises errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StudyError(
                f"Expected a store that can be read and written at {self.url} (artifacts.root), found none ({reason}): "
                "check its address, the credentials and the network, and run again."
            ) from None

    @staticmethod
    def _remove_files(files: Any, place: str, pattern: str) -> None:
        """Remove what is below a place in the folders of this pattern."""
        try:
            kept = files.ls(place, detail=False)
        except FileNotFoundError:
            return
        for each in kept:
            if PurePosixPath(each).match(pattern) and PurePosixPath(each).name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # another machine has removed it
                    files.rm(each, recursive=True)


@functools.cache
def _open(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # loaded where there is a store alone

    files, top = url_to_fs(url, use_listings_cache=False)
    if "file" in files.protocol:
        raise StudyError(
            f"Expected artifacts.root to be an object store such as s3://bucket/study, found the folder {url}: let "
            "machines that share a disk run in one folder instead."
        )
    return files, top


def shared_store(root: Path) -> SharedStore | None:
    """The store that an artifacts folder shares with others; None if it shares none."""
    try:
        return SharedStore((root / NAME).read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None
