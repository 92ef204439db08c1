"""An artifacts folder that shares a store with those of other machines (`artifacts.root`)."""

import logging
from collections.abc import Iterator
from pathlib import Path

from flows.files import write_text
from tasks.cases.withdrawn import FORGOTTEN
from tasks.errors import StudyError
from tasks.store import MANIFEST, ROOT, digest_at, discard, fetch
from tasks.store.shared_store import NAME, SharedStore, shared_store
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")
WHOLE = ("runs/", "comparisons/")
"""What every machine has all of: commands look there without asking for a path."""


def share(url: str | None) -> None:
    """Let this artifacts folder share the store at a URL from now on, and bring it up to date with the store.

    What is finished here goes to the store first. Without a URL, it stays as it was. Raises StudyError if the folder
    shares another store, or the store cannot be used.
    """
    before = shared_store(ROOT)
    if url and before and before.url != url:
        raise StudyError(
            f"Expected artifacts.root={before.url}, which {ROOT.absolute()} is a part of, found {url}: run in another "
            "folder."
        )
    if url and not before:
        store = SharedStore(url)
        known = set(store.paths())
        for path in _folders():
            if path not in known:
                store.put(ROOT / path, path)
        for place in ROOT.glob(f"hospitals/*/{FORGOTTEN}"):
            if store.read(place.relative_to(ROOT).as_posix()) is None:
                store.write(place.relative_to(ROOT).as_posix(), place.read_bytes())
        ROOT.mkdir(exist_ok=True)
        write_text(ROOT / NAME, f"{url}\n")  # last: after a kill before, all of it is done again
    bring_up_to_date()


def bring_up_to_date() -> None:
    """Do here what other machines have done in the shared store: withdrawals, removals, finished runs."""
    store = shared_store(ROOT)
    if store is None:
        return
    there, ours = set(store.paths()), set(_folders())
    for path in ours - there:
        discard(ROOT / path)
    for path in sorted(there - ours):
        if path.startswith(WHOLE):
            fetch(path)
    for place in store.files(f"hospitals/*/{FORGOTTEN}"):
        written = store.read(place)
        if written and (not (ROOT / place).exists() or (ROOT / place).read_bytes() != written):
            _take_withdrawals(store, place, written, ours & there)


def _take_withdrawals(store: SharedStore, place: str, written: bytes, both: set[str]) -> None:
    """Take over a hospital's list of withdrawals, after the folders that were written anew without the patients."""
    hospital = place.removesuffix(FORGOTTEN)
    stale = [path for path in sorted(both) if path.startswith(hospital) and store.digest(path) != digest_at(path)]
    for path in stale:
        fetch(path)
    (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
    write_text(ROOT / place, written.decode())
    logger.info("took withdrawals at %s: %s written anew", Path(hospital).name, counted(len(stale), "folders"))


def take_all(hospital: str) -> None:
    """Fetch all that the shared store has of a hospital, and all that hospitals shared."""
    bring_up_to_date()
    if store := shared_store(ROOT):
        for area in (f"hospitals/{hospital}/", "shared/"):
            for path in set(store.paths(area)) - set(_folders()):
                fetch(path)


def _folders() -> Iterator[str]:
    """Paths of all finished folders here."""
    for pattern in ("source/*/*", "shared/*/*", "hospitals/*/*/*", "runs/*", "comparisons/*"):
        for manifest in ROOT.glob(f"{pattern}/{MANIFEST}"):
            path = manifest.parent.relative_to(ROOT)
            if not any(part.startswith(".") for part in path.parts):
                yield path.as_posix()
