"""Names finished runs, opens and verifies them, and sets the link `latest`."""

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

from tasks.errors import StudyError
from tasks.settings import Study
from tasks.store.folders import ROOT, here
from tasks.store.manifest import check_files
from tasks.store.names import inside

STAMP = "%Y%m%d-%H%M%S"
"""How a run's name begins."""


class References(TypedDict):
    """The content of `references.json`: paths of a run's folders, relative to the artifacts."""

    adapter: str | None
    """The final adapter; None where the hospitals' adapters differ."""
    hospitals: dict[str, dict[str, Any]]
    """By hospital, the folders by name: one path, or a list of paths."""


def new_name() -> str:
    """A name that no other run has: when it was written, in UTC, and a random end.

    Runs are in order by their names. So a name is later than those of all runs that are there, also if the clock has
    gone back since they were written.
    """
    now = max([datetime.now(UTC), *(each + timedelta(seconds=1) for each in _times())])
    return f"{now:{STAMP}}-{secrets.token_hex(4)}"


def time_of(name: str) -> datetime:
    """When the run of a name was written. Raises ValueError if no run is called so."""
    return datetime.strptime(name[:15], STAMP).replace(tzinfo=UTC)


def _times() -> Iterator[datetime]:
    for path in (ROOT / "runs").glob("[!.]*"):
        with contextlib.suppress(ValueError):
            yield time_of(path.name)


def open_run(run: Path) -> tuple[Study, References]:
    """Open a finished run: its settings, and the paths of all its folders (`references.json`).

    Raises StudyError if there is no such run, one of its files has changed, or a path leads out of the artifacts.
    """
    try:
        settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        references = json.loads((run / "references.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise StudyError(
            f"Expected a finished run in {run}, found no readable settings.json and references.json there: "
            "run `fed-rag run` first, or name the folder of another run."
        ) from None
    check_run(run)
    for places in references["hospitals"].values():
        for path in (references["adapter"], *paths_of(places, places)):
            if path is not None:
                inside(path)
    return Study.model_validate(settings), references


def check_run(run: Path, paths: Iterable[str] = ()) -> None:
    """Raise StudyError if a file of a run, or of these folders that it refers to, is missing or has changed.

    `paths` are relative to the artifacts. A rewrite by `fed-rag forget` does not count as a change.
    """
    for folder in (run, *map(here, paths)):
        try:
            check_files(folder)
        except (OSError, ValueError) as error:
            found = "gone" if isinstance(error, FileNotFoundError) else "changed"
            raise StudyError(
                f"Expected all files of {folder} as {run if folder != run else 'they'} left them, found some {found}: "
                "run `fed-rag run` again, which makes anew what is missing."
            ) from None


def paths_of(places: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The folders of a hospital (an entry of `references.json`) under these names; missing names are skipped."""
    found = [places[name] for name in names if name in places]
    return [path for each in found for path in (each if isinstance(each, list) else [each])]


def point_latest(run: Path) -> None:
    """Point the link `latest` to a run, atomically: a reader finds the old run or the new one."""
    link = ROOT / f".latest.{secrets.token_hex(4)}"  # studies of a comparison may end at once
    link.symlink_to(run.relative_to(ROOT), target_is_directory=True)
    link.replace(ROOT / "latest")
