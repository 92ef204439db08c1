"""The files of a folder that travel, and those of an answer that are taken."""

from collections.abc import Collection, Mapping

from tasks.errors import StudyError
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, CONTROL_FILE, RESIDUAL, group_file
from tasks.store import Folder, Ref

ADAPTER = frozenset({ADAPTER_FILE, CONFIG_FILE, group_file(RESIDUAL), CONTROL_FILE})
"""What hospitals get of the server's state; who was left out of a round, and its momentum and the like, stay there."""
SENT_FILES = frozenset({ADAPTER_FILE, CONFIG_FILE, "update.json"})
VALIDATION = frozenset({"validation.json"})
PRIVACY = frozenset({"privacy.json"})
SCORES = "scores/scores.json"
BY_GROUP = frozenset(
    {
        "scores/sums.parquet",
        "reliance/scores.json",
        "failures/failures.json",
        "shares/shares.json",
        "abstention/abstention.json",
        "seen/seen.json",
        "gain/gain.json",
    }
)
"""Scores by group and by image, and counts of some answers: a hospital may keep all of them."""


def adapter_of(state: Ref) -> dict[str, bytes]:
    """The files of an adapter, or of a server's state, that hospitals get."""
    return {name: (state.folder / name).read_bytes() for name in sorted(state.manifest()["files"]) if name in ADAPTER}


def starts_of(states: Mapping[int, Ref]) -> dict[str, bytes]:
    """The adapters that rounds began with, by the number of the round, as files that travel beside another adapter."""
    return {f"{number}/{name}": data for number, state in states.items() for name, data in adapter_of(state).items()}


def start_in(files: Mapping[str, bytes], number: int) -> dict[str, bytes]:
    """The files of the adapter that a round began with; {} if they did not travel."""
    return {name: files[f"{number}/{name}"] for name in sorted(ADAPTER) if f"{number}/{name}" in files}


def take(
    folder: Folder, files: Mapping[str, bytes], known: Collection[str], optional: Collection[str] = frozenset()
) -> None:
    """Write the files of an answer. Raises StudyError if they are not those that are known and some optional ones."""
    if files.keys() - set(optional) != set(known):
        raise StudyError(
            f"Expected the files {', '.join(sorted(known))} in a hospital's answer, found others: install the same "
            "version of fed-rag at the coordinator and at every hospital."
        )
    for name in sorted(files):
        folder.write(name, files[name])
