"""Removes old runs, and the folders of finished stages that no run refers to any more."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from flows.run_list import FinishedRun, read_runs, size_of
from tasks.store import MANIFEST, ROOT, discard

GRACE_S = 24 * 3600
"""Folders younger than this stay without a run: a run that failed may be retried, and goes on from them."""
LINKS = ("latest", "current")
"""Links to runs that are in use."""


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be."""

    runs: list[str]
    folders: list[str]
    """Of stages, relative to the artifacts."""
    bytes: int
    kept: dict[str, str]
    """Of the runs that would have been old enough, why they are kept."""
    running: int
    """Studies that are running here: while there are any, no stage's folder is removed."""


def prune(keep: int, dry: bool = False) -> Pruned:
    """Remove all but the newest runs and those in use, then the folders that only removed runs, or none, refer to.

    A run is in use if `latest` or `current` leads to it, or if a comparison was made from it. With `dry`, nothing
    changes, and the result says what would be removed.
    """
    found = read_runs()
    used = in_use()
    old = [run for run in found[keep:] if run.name not in used]
    staying = [run for run in found if run not in old]
    running = _running()
    folders = [] if running else sorted(_unreferenced(staying))
    freed = size_of(folders) + size_of([f"runs/{run.name}" for run in old])
    if not dry:
        for run in old:
            discard(run.folder, everywhere=False)
        for path in folders:
            discard(ROOT / path, everywhere=False)
        _forget_records(folders)
    kept = {run.name: used[run.name] for run in found[keep:] if run.name in used}
    return Pruned([run.name for run in old], folders, freed, kept, running)


def in_use() -> dict[str, str]:
    """Names of runs that are in use, each with what uses it."""
    used: dict[str, str] = {}
    for path in (ROOT / "comparisons").glob("*/comparison.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for row in json.loads(path.read_text(encoding="utf-8"))["runs"]:
                used.setdefault(row["run"], f"comparison {path.parent.name}")
    for name in LINKS:
        if (ROOT / name).exists():
            used.setdefault((ROOT / name).resolve().name, name)
    return used


def _running() -> int:
    """How many flow runs are active in these artifacts: each holds a lock (`flows/gone.py`)."""
    count = 0
    for path in (ROOT / ".running").glob("*-*"):
        try:
            with FileLock(path, blocking=False):
                pass
        except Timeout:
            count += 1
    return count


def _unreferenced(staying: list[FinishedRun]) -> Iterator[str]:
    needed = {path for run in staying for path in run.folders}
    for folder in _stage_folders():
        path = folder.relative_to(ROOT).as_posix()
        if path not in needed and time.time() - (folder / MANIFEST).stat().st_mtime > GRACE_S:
            yield path


def _stage_folders() -> Iterator[Path]:
    """Finished folders of stages: those of the sources, of all hospitals together, and of each."""
    for area in (ROOT / "source", ROOT / "shared", *(ROOT / "hospitals").glob("[!.]*")):
        yield from (path.parent for path in area.glob(f"[!.]*/[!.]*/{MANIFEST}"))


def _forget_records(folders: list[str]) -> None:
    """Remove Prefect's records of stages whose folders are gone."""
    gone = [json.dumps(path)[1:-1] for path in folders]
    for record in (ROOT / ".records").glob("*") if gone else ():
        text = record.read_text(encoding="utf-8")
        if any(path in text for path in gone):
            record.unlink(missing_ok=True)
