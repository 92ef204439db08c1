"""An artifacts folder that shares a store with those of other machines (`artifacts.root`)."""

import logging

from flows.files import write_text
from flows.forget import erase_listed
from flows.withdrawals import finished_folders, merge_lists
from tasks.errors import StudyError
from tasks.store import ROOT, fetch
from tasks.store.checkpoints import CHECKPOINT
from tasks.store.shared_store import NAME, SharedStore, shared_store
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")
WHOLE = ("runs/", "comparisons/")
"""What every machine has all of: commands look there without asking for a path."""


def share(url: str | None) -> None:
    """Let this artifacts folder share the store at a URL from now on, and bring both up to date.

    Without a URL it stays with its store, if it has one. Raises StudyError if the folder shares another store, or the
    store cannot be used.
    """
    before = shared_store(ROOT)
    if url and before and before.url != url:
        raise StudyError(
            f"Expected artifacts.root={before.url}, which {ROOT.absolute()} is a part of, found {url}: run in another "
            "folder."
        )
    if url and not before:
        SharedStore(url).paths()  # raises before anything is written
        ROOT.mkdir(exist_ok=True)
        write_text(ROOT / NAME, f"{url}\n")
    bring_up_to_date()


def bring_up_to_date() -> None:
    """Erase here who withdrew elsewhere, give the store what it lacks, and take the runs that others have finished."""
    store = shared_store(ROOT)
    if store is None:
        return
    for hospital in merge_lists():
        if erased := erase_listed(hospital):
            logger.info("erased at %s who withdrew: %s changed or removed", hospital, counted(erased, "folders"))
    ours, there = list(finished_folders()), set(store.paths())
    for path in ours:
        if path not in there and f"/{CHECKPOINT}/" not in path:
            store.put(ROOT / path, path)
    for path in sorted(there - set(ours)):
        if path.startswith(WHOLE):
            fetch(path)


def refuse_shared(where: str) -> None:
    """Raise StudyError if this artifacts folder shares a store, where its files must stay on one machine."""
    if store := shared_store(ROOT):
        raise StudyError(
            f"Expected artifacts of one machine {where}, found {ROOT.absolute()}, which shares {store.url}: run in "
            "another folder."
        )
