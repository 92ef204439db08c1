"""Rewrites a hospital's folders without a patient, each by the eraser of its stage."""

import contextlib
from pathlib import Path

import tasks.answer.erase
import tasks.attack.erase
import tasks.explain.erase
import tasks.features.erase
import tasks.federate.erase
import tasks.partition.erase
import tasks.retrieve.erase
from tasks.cases.erasure import Counts, Erasers, Patient
from tasks.store import MANIFEST, ROOT, find, revising

ERASERS: Erasers = {
    **tasks.partition.erase.ERASERS,
    **tasks.features.erase.ERASERS,
    **tasks.retrieve.erase.ERASERS,
    **tasks.federate.erase.ERASERS,
    **tasks.answer.erase.ERASERS,
    **tasks.explain.erase.ERASERS,
    **tasks.attack.erase.ERASERS,
}
"""By stage, the eraser of its folders in `hospitals/<h>/`."""


class _UntouchedError(Exception):
    """Raised to leave a folder unchanged: it holds nothing of the patient, or the call only counts."""


def rewrite(path: str, gone: Patient, dry: bool = False) -> Counts | None:
    """Replace a hospital's folder by one without the patient, atomically.

    `path` is relative to the artifacts: `hospitals/<h>/<stage>/<key>`. Returns counts of what was removed, empty if the
    folder holds nothing of the patient, or None for a stage without an eraser. With `dry`, the folder is not changed.
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
    """Whether every file of a folder matches its manifest."""
    try:
        find(folder.relative_to(ROOT).as_posix()).verified()
    except (OSError, ValueError, KeyError):
        return False
    return (folder / MANIFEST).is_file()
