"""The finished runs in the artifacts, read from their own folders alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.errors import StudyError
from tasks.records.comparison import ScoreEntry
from tasks.settings import Study
from tasks.store import MANIFEST, ROOT
from tasks.store.provenance import inputs_of
from tasks.store.runs import References, paths_of, time_of

MEASURES = {"closed_accuracy": "closed", "open_exact_match": "open"}
"""The scores of a run in a list, and their headings: accuracy of closed questions, exact match of open ones."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as its folder tells it."""

    name: str
    when: datetime
    """When it was written, in UTC."""
    configuration: str
    settings: Mapping[str, Any]
    """All settings by their dotted names."""
    scores: Sequence[ScoreEntry]
    """Of the trained configuration over all test cases."""
    folders: frozenset[str]
    """All folders that it was made from, relative to the artifacts; other runs may share them."""
    seconds: float
    """How long its stages took when they ran."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        return ROOT / "runs" / self.name

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the default, by their dotted names."""
        default = flat(Study().model_dump(mode="json"))
        return {name: value for name, value in self.settings.items() if default.get(name) != value}


def read_runs() -> list[FinishedRun]:
    """All finished runs, the newest first; folders that are no finished runs are left out."""
    return sorted(_readable(), key=lambda run: (run.when, run.name), reverse=True)


def find_run(name: str) -> FinishedRun:
    """The run of a name, of a folder, or of a link to one, as `latest`. Raises StudyError if there is none."""
    places = (Path(name), ROOT / name, ROOT / "runs" / name)
    place = next((each.resolve() for each in places if (each / "results.json").is_file()), None)
    try:
        if place is None:
            raise FileNotFoundError
        return read_run(place)
    except (OSError, ValueError, KeyError, TypeError):
        known = ", ".join(run.name for run in read_runs()[:3]) or "none yet"
        raise StudyError(f"Expected a finished run, found none at {name}: the newest are {known}.") from None


def read_run(folder: Path) -> FinishedRun:
    """A run from its folder. Raises OSError, ValueError, KeyError or TypeError if it is none."""
    results, settings, references = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("results", "settings", "references")
    )
    configuration = next(iter(results["configurations"]))
    return FinishedRun(
        name=folder.name,
        when=time_of(folder.name),
        configuration=configuration,
        settings=flat(settings),
        scores=[each for each in results["scores"] if (each["configuration"], each["group"]) == (configuration, "all")],
        folders=frozenset(_folders(folder, references)),
        seconds=sum(results["timings_s"].values()),
    )


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def size_of(folders: Sequence[str] | frozenset[str]) -> int:
    """The bytes of folders relative to the artifacts, by their manifests."""
    return sum(_bytes(ROOT / path) for path in folders)


def _bytes(folder: Path) -> int:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return 0
    return sum(each["bytes"] for each in files.values())


def _readable() -> Iterator[FinishedRun]:
    for folder in (ROOT / "runs").glob("[!.]*"):
        try:
            yield read_run(folder)
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _folders(run: Path, references: References) -> set[str]:
    """The folders that a run refers to or was written from, and all that these were made from."""
    path = run.resolve().relative_to(ROOT.resolve()).as_posix()
    waiting = [*inputs_of(path), *([references["adapter"]] if references["adapter"] else [])]
    for places in references["hospitals"].values():
        waiting += paths_of(places, places)
    found = {path}
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += inputs_of(each)
    return found
