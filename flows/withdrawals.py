"""A hospital's list of withdrawals where machines share a store: there, each withdrawal is an object of its own.

So machines that write at once lose nothing of each other, and each list is what all have written.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.files import write_text
from tasks.cases.withdrawn import FORGOTTEN, forgotten_at
from tasks.store import MANIFEST, ROOT, fetch
from tasks.store.names import inside
from tasks.store.shared_store import SharedStore, shared_store

Row = dict[str, Any]


def write_list(hospital: Path, rows: Sequence[Row]) -> None:
    """Write a hospital's list here, and each of its withdrawals to the shared store, if there is one."""
    if store := shared_store(ROOT):
        for row in rows:
            store.write(f"{_place(hospital)}/{row['digest']}.json", json.dumps(row).encode())
    write_text(hospital / FORGOTTEN, json.dumps(rows, indent=2) + "\n")


def merge_lists() -> list[str]:
    """Let each hospital's list hold what this machine and the shared store have; returns hospitals with any."""
    store = shared_store(ROOT)
    if store is None:
        return []
    names = {path.parent.name for path in ROOT.glob(f"hospitals/*/{FORGOTTEN}")}
    names |= {name.split("/")[1] for name in store.files("hospitals/*/forgotten/*.json")}
    for name in sorted(names):
        place = ROOT / "hospitals" / inside(name)
        ours, theirs = _by_digest(forgotten_at(place)), _by_digest(_rows(store, place))
        both = {digest: _joined(ours.get(digest), theirs.get(digest)) for digest in {**ours, **theirs}}
        if both != ours or both != theirs:
            write_list(place, list(both.values()))
        if both.keys() - theirs.keys():
            take_all(name)  # what the store has of patients who withdrew here is erased there too
    return sorted(names)


def take_all(hospital: str) -> None:
    """Fetch all that the shared store has of a hospital, and all that hospitals shared, so that it can be erased."""
    if store := shared_store(ROOT):
        for area in (f"hospitals/{hospital}/", "shared/"):
            for path in set(store.paths(area)) - set(finished_folders()):
                fetch(path)


def finished_folders() -> Iterator[str]:
    """Paths of all finished folders of this machine."""
    for pattern in ("source/*/*", "shared/*/*", "hospitals/*/*/*", "runs/*", "comparisons/*"):
        for manifest in ROOT.glob(f"{pattern}/{MANIFEST}"):
            path = manifest.parent.relative_to(ROOT)
            if not any(part.startswith(".") for part in path.parts):
                yield path.as_posix()


def _place(hospital: Path) -> str:
    return f"{hospital.relative_to(ROOT).as_posix()}/forgotten"


def _rows(store: SharedStore, hospital: Path) -> list[Row]:
    found = [store.read(name) for name in store.files(f"{_place(hospital)}/*.json")]
    return [json.loads(row) for row in found if row]


def _by_digest(rows: Sequence[Row]) -> dict[str, Row]:
    return {row["digest"]: row for row in rows}


def _joined(one: Row | None, other: Row | None) -> Row:
    """One withdrawal as two machines know it."""
    if one is None or other is None:
        return one or other or {}
    both = {name: sorted({*one[name], *other[name]}) for name in ("images", "adapters")}
    return one | both | {"on": min(one["on"], other["on"])}
