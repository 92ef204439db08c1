"""A hospital's folders, each rewritten without a patient by the eraser of the stage that left it."""

import contextlib
from pathlib import Path

import tasks.answer.erase
import tasks.explain.erase
import tasks.features.erase
import tasks.partition.erase
import tasks.retrieve.erase
from tasks.cases.erasure import Counts, Erasers, Patient
from tasks.store import MANIFEST, ROOT, find, revising

ERASERS: Erasers = {
    **tasks.partition.erase.ERASERS,
    **tasks.features.erase.ERASERS,
    **tasks.retrieve.erase.ERASERS,
    **tasks.answer.erase.ERASERS,
    **tasks.explain.erase.ERASERS,
}
"""Of each stage whose folders are in `hospitals/<h>/`."""


class _UntouchedError(Exception):
    """Nothing of the patient was found, or it was only to be counted: the folder stays as it is."""


def rewrite(path: str, gone: Patient, dry: bool = False) -> Counts | None:
    """Put a finished folder without the patient in the place of a hospital's folder, in one step.

    `path` is relative to the artifacts: `hospitals/<h>/<stage>/<key>`. Returns what was removed, empty where the
    folder holds nothing of the patient, and None for a stage without an eraser. A `dry` one leaves the folder as it is.
    """
    erase = ERASERS.get(path.split("/")[-2])
    if erase is None:
        return None
    counts: Counts = {}
    with contextlib.suppress(_UntouchedError), revising(path) as folder:
        counts = {name: number for name, number in erase(ROOT / path, folder, gone).items() if number}
        if dry or not counts:
            raise _UntouchedError
    return counts


def is_whole(folder: Path) -> bool:
    """Whether every file of a folder is what its manifest says."""
    try:
        find(folder.relative_to(ROOT).as_posix()).verified()
    except (OSError, ValueError, KeyError):
        return False
    return (folder / MANIFEST).is_file()
