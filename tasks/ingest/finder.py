"""Finds a hospital's table and the files that it names, despite differences between systems.

A name that exists as written is used at once. Otherwise each folder is listed once, and a file matches whose name
differs only in case, blanks, slashes or Unicode form, in the folder or one folder deeper. It is used where it is the
only match.
"""

import contextlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tasks.ingest.finding import problem
from tasks.ingest.folder import named_folder

REMEDY = "correct the row or remove it"
FOREIGN = re.compile(r"[A-Za-z]:[\\/]|\\\\|//")
"""Beginnings of paths of other systems: a drive or a server."""
UNPACKERS = "__MACOSX"
"""A folder that macOS adds to its archives."""


def find_table(root: Path | None, dataset: str, suffixes: Sequence[str]) -> Path:
    """Find the one table in a folder, or one folder deeper where the folder has none.

    Files that macOS and spreadsheets add (`._cases.csv`, `~$cases.csv`) are ignored; suffixes may be in any case.
    Raises StudyError where there is no table, or more than one.
    """
    remedy = "set dataset.root to the folder that holds the table"
    folder, expected = named_folder(root, dataset, [f"*{suffix}" for suffix in suffixes], remedy)
    try:
        tables = _tables(folder, suffixes) or [path for each in _folders(folder) for path in _tables(each, suffixes)]
    except OSError as error:
        raise problem(str(root), expected, f"an unreadable folder ({error.strerror})", remedy) from None
    if not tables:
        raise problem(str(root), expected, "none of them, nor one folder deeper", remedy)
    if len(tables) > 1:
        raise problem(str(root), "one table", str(len(tables)), "leave the one to be read and move the others")
    return tables[0]


def _tables(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith((".", "~")) and path.is_file()
    ]


def _folders(folder: Path) -> list[Path]:
    found = (path for path in sorted(folder.iterdir()) if path.name != UNPACKERS and not path.name.startswith("."))
    return [path for path in found if path.is_dir()]


class Files:
    """Finds files by the names in rows: below the table's folder, or below the folder that the user named."""

    def __init__(self, *places: Path) -> None:
        self._places = list(dict.fromkeys(path.absolute() for path in places))
        self._listed: dict[Path, dict[str, list[str]]] = {}
        self._stems: dict[Path, set[str]] = {}
        self._deeper: dict[str, list[Path]] | None = None

    def find(self, name: str, where: str) -> Path:
        """Find the file that a row names.

        Links in the folder are followed, since its owner made them; a name that leads out of the folder is refused.
        Raises FindingError with the kind of problem, never with the name.
        """
        if FOREIGN.match(name):
            found = "one with a drive or a server, of another system"
            raise problem(where, "a path below the dataset's folder", found, REMEDY)
        for place in self._places:
            inside = _below(place, name)
            if inside is not None and _is_there(place / inside, where):
                return place / inside
        path = _below(self._places[0], name)
        slashed = _normal(path.replace("\\", "/")) if path is not None else None
        if slashed is None:
            raise problem(where, "a file inside the dataset's folder", "a path that leaves it", "correct the row")
        parts = slashed.split("/")
        alike = self._alike(self._places, parts) or self._alike(self._one_deeper(parts[0]), parts)
        if len(alike) == 1:
            return alike[0]
        raise problem(where, "an image file", self._trouble(name, parts, several=bool(alike)), REMEDY)

    def _trouble(self, name: str, parts: Sequence[str], *, several: bool) -> str:
        """Why no file matches without doubt."""
        if several:
            return "several files whose names differ from it in case, blanks, Unicode form or folder alone"
        if "://" in name:
            return "a web address"
        if any(path.is_dir() for path in self._walk(self._places, parts)):
            return "a folder"
        if any(_stem(parts[-1]) in self._stems_in(folder) for folder in self._walk(self._places, parts[:-1])):
            return "no such file, but one with another ending"
        return "no such file, in any case, blanks or Unicode form, nor one folder deeper"

    def _alike(self, places: Iterable[Path], parts: Sequence[str]) -> list[Path]:
        """The file whose path matches except for case, blanks and Unicode form; two files where several match."""
        found: dict[tuple[int, int], Path] = {}
        for path in self._walk(places, parts):
            with contextlib.suppress(OSError):  # a broken link
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    found.setdefault((status.st_dev, status.st_ino), path)
            if len(found) > 1:
                break
        return list(found.values())

    def _walk(self, places: Iterable[Path], parts: Sequence[str]) -> Iterator[Path]:
        """All paths that match the parts; a name that exists as written takes precedence over similar ones."""
        for place in places:
            if not parts:
                yield place
                continue
            alike = self._names_in(place).get(_key(parts[0]), [])
            names = [parts[0]] if parts[0] in alike else alike
            yield from self._walk([place / name for name in names], parts[1:])

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder, grouped by `_key`."""
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            self._listed[folder] = names
            with contextlib.suppress(OSError), os.scandir(folder) as entries:  # not a folder, or an unreadable one
                for entry in entries:
                    names.setdefault(_key(entry.name), []).append(entry.name)
        return self._listed[folder]

    def _stems_in(self, folder: Path) -> set[str]:
        if folder not in self._stems:
            self._stems[folder] = {_stem(name) for names in self._names_in(folder).values() for name in names}
        return self._stems[folder]

    def _one_deeper(self, part: str) -> list[Path]:
        """The subfolders that contain something of this name."""
        if self._deeper is None:
            self._deeper = {}
            for folder in dict.fromkeys(folder for place in self._places for folder in _folders(place)):
                for key in self._names_in(folder):
                    self._deeper.setdefault(key, []).append(folder)
        return self._deeper.get(_key(part), [])


def _below(place: Path, name: str) -> str | None:
    """A name relative to a folder; None where it leads out of the folder."""
    if not name.startswith("/"):
        return _normal(name)
    try:
        normal = Path(os.path.normpath(name))
        for base in (place, place.resolve()):
            if normal.is_relative_to(base):
                return normal.relative_to(base).as_posix()
        real = Path(name).resolve()
        return real.relative_to(place.resolve()).as_posix() if real.is_relative_to(place.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # too long a name, a loop of links, a zero byte
        return None


def _normal(name: str) -> str | None:
    """A relative name without `.` and `..`; None where it leads out, or is no valid file name."""
    normal = os.path.normpath(name)
    leads_out = normal.startswith("/") or normal.split("/")[0] == ".." or "\0" in normal
    return None if leads_out or not _is_encodable(normal) else normal


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _is_there(path: Path, where: str) -> bool:
    """Whether a file of exactly this name exists; raises FindingError where it cannot be read."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise problem(where, "an image file", f"an unreadable file ({error.strerror})", REMEDY) from None


def _key(name: str) -> str:
    """The form that names share if they differ only in case, blanks or Unicode form."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join("".join(each for each in text if each.isprintable() or each.isspace()).split())


def _stem(name: str) -> str:
    return _key(Path(name).stem)
