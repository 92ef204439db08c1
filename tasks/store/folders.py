"""Artifacts on disk: folders that appear whole or not at all, content digests, and manifests written last.

A stage's folder is `artifacts/<area>/<stage>/<key>/`. The key is a digest of the stage's settings, inputs and code, so
the same work always has the same path. Files are written into a hidden sibling folder, which is renamed once its
manifest is written. So a reader sees a whole folder or none.
"""

import contextlib
import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

import psutil
from filelock import FileLock
from pydantic import AfterValidator, BaseModel, ConfigDict

from tasks.errors import StudyError
from tasks.store.digests import file_digest
from tasks.store.manifest import MANIFEST, FileEntry, Manifest, check_files, digest_of
from tasks.store.memory import peak_memory
from tasks.store.names import inside
from tasks.store.shared_store import shared_store

ROOT = Path("artifacts")


class Ref(BaseModel):
    """A reference to a finished folder, which is all that stages pass to each other."""

    model_config = ConfigDict(frozen=True)

    path: Annotated[str, AfterValidator(inside)]
    """Relative to the artifacts folder, with forward slashes; never out of it."""
    digest: str
    """The digest of the names and contents of its files."""

    @property
    def folder(self) -> Path:
        """The path of the folder; if this machine does not have it, it is fetched from the store that it shares."""
        return here(self.path)

    def only(self, name: str) -> "Ref":
        """A reference to one file of the folder: stages that take it do not rerun when other files change."""
        return Ref(path=self.path, digest=self.manifest()["files"][name]["sha256"])

    def manifest(self) -> Manifest:
        """The folder's manifest."""
        return json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))

    def verified(self) -> "Ref":
        """Check every file against the manifest, and return this reference.

        Raises FileNotFoundError if a file is missing, ValueError if one or the manifest has changed.
        """
        if check_files(self.folder) != self.digest:
            raise ValueError(f"{self.path}: the manifest is not the one that was referred to")
        return self


class Folder:
    """A folder that is being written."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        """What it will be called: a digest of all that it is made of."""
        self.summary: dict[str, Any] = {}
        """Counts and notes for the manifest; not part of the digest."""
        self.inputs: list[str] = []
        """Paths of the folders that it is made from, for the manifest."""
        self.former_inputs: list[str] = []
        """Other paths that held the same input content in earlier requests (`provenance.py`)."""
        self.leaves: list[str] | None = None
        """Kinds of data that leave a hospital in this folder, as its stage declares; None if no stage makes it."""
        self.again: str | None = None
        """The flow run that was asked to make it again (`again.py`); None in any other run."""
        self.superseded: list[str] = []
        """Paths of folders that nobody needs once this one is finished, and that are removed then."""
        self.earlier_seconds = 0.0
        """How long a process that was killed worked on it, where its work was kept (`checkpoints.py`)."""
        self.ref: Ref
        """Set once the folder is finished."""

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a new binary file in the folder. Raises StudyError if its name leads out of the folder."""
        path = self.path / inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sink:
            yield sink

    def write(self, name: str, data: bytes) -> None:
        """Write one file."""
        with self.open(name) as sink:
            sink.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file, keys in the order given."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def writing(area: str, stage: str, key: str) -> Iterator[Folder]:
    """Make the folder `area/stage/key`. On exit it gets its manifest and its name, and `folder.ref` is set.

    On any error nothing is left behind. Raises StudyError if the disk is full, a file cannot be read or written, or a
    name leads out of the artifacts.
    """
    target = ROOT / inside((PurePosixPath(area) / stage / key).as_posix())
    hidden = _hidden_beside(target)
    started = time.perf_counter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        _writing.add(hidden)
        hidden.mkdir()
        folder = Folder(hidden, key)
        yield folder
        folder.ref = _finish(folder, target, folder.earlier_seconds + time.perf_counter() - started)
        for path in folder.superseded:
            with contextlib.suppress(OSError):  # where there is none, or another process has removed it
                discard(ROOT / path)
    except Exception as error:
        reason = _refused(error)
        if reason is None:
            raise
        name = getattr(error, "filename", None)
        foreign = name and not Path(name).absolute().is_relative_to(ROOT.absolute())
        place = f"Cannot read {name}" if foreign else f"Cannot write {target}"
        raise StudyError(f"{place}: {reason}; free some space or mend the permissions, and run again.") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        _writing.discard(hidden)


NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def _refused(error: Exception) -> str | None:
    """Why the system let nothing be written, in its words; None if the error is another one.

    Libraries that write files themselves (safetensors, FAISS) tell of a full disk by errors of their own.
    """
    if isinstance(error, OSError):
        known = error.errno in (*NO_ROOM, errno.EROFS, errno.EACCES)
        return (error.strerror or str(error)) if known else None
    if isinstance(error, StudyError):
        return None
    return next((words for words in map(os.strerror, NO_ROOM) if words in str(error)), None)


@contextlib.contextmanager
def revising(path: str) -> Iterator[Folder]:
    """Change a finished folder, by writing or removing files in a copy; `path` is relative to the artifacts.

    Until exit, readers find the old folder. Then the new one replaces it, and the cache records of finished stages get
    its new digest. Only one process at a time revises folders of the same stage. On any error the old folder stays.
    Raises FileNotFoundError if there is no such folder, StudyError as `writing` does.
    """
    *areas, stage, key = path.split("/")
    area = "/".join(areas)  # empty for a run
    with alone(ROOT / area / stage):
        ref = find(path)
        manifest = ref.manifest()
        with writing(area, stage, key) as folder:
            for name in manifest["files"]:
                copy = folder.path / inside(name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ref.folder / name, copy)
            folder.summary, folder.inputs = manifest["summary"], manifest.get("inputs", [])
            folder.former_inputs, folder.leaves = manifest.get("former_inputs", []), manifest.get("leaves")
            yield folder
        _renew_records(ref.digest, folder.ref.digest)


def _renew_records(old: str, new: str) -> None:
    """Replace a folder's old digest by the new one in Prefect's records of finished stages."""
    for path in (ROOT / ".records").glob("*"):
        text = path.read_text(encoding="utf-8")
        if old != new and old in text:
            beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            beside.write_text(text.replace(old, new), encoding="utf-8")
            beside.replace(path)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder: only one process at a time is in this context for it; the others wait."""
    with FileLock(folder / ".lock"):
        yield


def here(path: str) -> Path:
    """The folder at a path relative to the artifacts, fetched if this machine lacks it and the shared store has it."""
    place = ROOT / path
    if not place.exists():
        fetch(path)
    return place


def kept(path: str) -> Ref | None:
    """The whole folder at a path, if these artifacts share a store, and this machine or another one has made it."""
    if shared_store(ROOT) is None:
        return None
    try:
        return find(path).verified()
    except (OSError, ValueError, KeyError):  # missing everywhere, or damaged here
        return fetch(path)


def fetch(path: str) -> Ref | None:
    """Take a finished folder from the store that these artifacts share, in place of one that may be here.

    Returns its reference; None if no store is shared, or it does not have the folder.
    """
    store = shared_store(ROOT)
    if store is None:
        return None
    target = ROOT / inside(path)
    hidden = _hidden_beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _writing.add(hidden)
    try:
        hidden.mkdir()
        if not store.fetch(path, hidden):
            return None
        _put(hidden, target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        _writing.discard(hidden)
    return find(path)


def find(path: str) -> Ref:
    """The current reference to the finished folder at a path relative to the artifacts."""
    manifest = json.loads((here(path) / MANIFEST).read_text(encoding="utf-8"))
    return Ref(path=path, digest=manifest["digest"])


def digest_at(path: str) -> str:
    """The digest of the finished folder at a path relative to the artifacts; empty if there is none."""
    try:
        return find(path).digest
    except (OSError, ValueError, KeyError):
        return ""


_writing: set[Path] = set()
"""Hidden folders that threads of this process are writing now."""


def _hidden_beside(target: Path) -> Path:
    """A unique hidden name that includes the process id, so that the folder's owner can be identified later."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")


def _finish(folder: Folder, target: Path, seconds: float) -> Ref:
    files: dict[str, FileEntry] = {
        path.relative_to(folder.path).as_posix(): {"sha256": file_digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.path.rglob("*"))
        if path.is_file()
    }
    digest = digest_of(files)
    manifest: Manifest = {
        "files": files,
        "digest": digest,
        "inputs": folder.inputs,
        "former_inputs": folder.former_inputs,
        "leaves": folder.leaves,
        "summary": folder.summary,
        "seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory(),
    }
    if folder.again:
        manifest["again"] = folder.again
    folder.write_json(MANIFEST, manifest)
    path = target.relative_to(ROOT).as_posix()
    if store := shared_store(ROOT):
        store.put(folder.path, path)  # first: what is finished here, other machines find
    _put(folder.path, target)
    return Ref(path=path, digest=digest)


def _put(made: Path, target: Path) -> None:
    """Move a finished folder to its path; a folder already there (damaged, old, or another process's) is removed."""
    if target.exists() and _swap(made, target):
        return  # the writer removes the old folder, which now has the hidden name
    discarded = _hidden_beside(target)
    try:
        with contextlib.suppress(FileNotFoundError):
            target.rename(discarded)
        made.rename(target)
    finally:
        shutil.rmtree(discarded, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders atomically, and return whether the system can: a reader or a kill never sees neither."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return swap is not None and swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def remove_abandoned(parent: Path) -> None:
    """Remove unfinished folders that killed processes of this machine left.

    In a container, the next run can get the same process id. So folders with this process's id that it is not writing
    were left by another process.
    """
    for path in parent.glob(".*.tmp"):
        match = re.search(r"\.(\d+)\.tmp$", path.name)
        if match and not (path in _writing if int(match[1]) == os.getpid() else psutil.pid_exists(int(match[1]))):
            shutil.rmtree(path, ignore_errors=True)


def remove_unfinished() -> None:
    """Remove the unfinished folders of this process, before it exits."""
    for path in list(_writing):
        shutil.rmtree(path, ignore_errors=True)


def discard(folder: Path, everywhere: bool = True) -> None:
    """Remove a folder, finished or damaged, `everywhere` from the store that is shared as well.

    If this process is killed, `remove_abandoned` removes the rest. Raises FileNotFoundError if it is not here.
    """
    if everywhere and (store := shared_store(ROOT)):
        store.remove(folder.relative_to(ROOT).as_posix())
    hidden = _hidden_beside(folder)
    folder.rename(hidden)
    shutil.rmtree(hidden)
