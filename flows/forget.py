"""Removes a patient who withdrew from a hospital's folders, and lists the adapters that were trained on them."""

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.serve.asked_log import LOG, alone_at, erase
from flows.withdrawals import take_all, write_list
from flows.withdrawn import is_whole, rewrite
from tasks.cases.erasure import Patient
from tasks.cases.patients import bare, names_of
from tasks.cases.withdrawn import forgotten_at, is_forgotten, name_digest
from tasks.errors import StudyError
from tasks.promote.record import append
from tasks.records import Case, read_table
from tasks.store import ROOT, discard, find, remove_abandoned
from tasks.store.checkpoints import CHECKPOINT
from tasks.store.provenance import inputs_of


@dataclass(frozen=True)
class Forgotten:
    """The result of forgetting a patient."""

    removed: tuple[tuple[str, str], ...]
    """For each changed folder or page: its path in the artifacts, and what was removed."""
    adapters: tuple[str, ...]
    """Folders of tensors that were trained with the patient among the training cases, or continue from such tensors.

    They include training that held the patient's image out: its cases may have been context for other questions.
    """
    again: bool
    """Whether the patient was already on the hospital's list of withdrawals."""
    elsewhere: tuple[str, ...]
    """Other hospitals whose folders hold a patient of this name, for example from other simulations."""


def forget(hospital: str, patient: str, dry: bool = False) -> Forgotten:
    """Remove a patient (or an image, if the dataset states no patient) from everything that a hospital stores.

    `patient` is the id as in the hospital's table or DICOM file, or as in the cases. It is not stored anywhere.
    The withdrawal is recorded first, so no later run takes the patient back. The hospital's cases are rewritten last:
    they identify the patient's other data, so if this is killed, the same call removes the rest.
    `fed-rag serve` answers nothing at the hospital meanwhile, and opens what is left afterwards.
    With `dry`, nothing changes, and the result says what would be removed.
    Raises StudyError for an unknown hospital or patient.
    """
    if not dry:
        take_all(hospital)
    place = _place(hospital)
    with contextlib.nullcontext() if dry else alone_at(hospital):
        return _forget(place, patient, dry)


def _forget(place: Path, patient: str, dry: bool) -> Forgotten:
    for stage in sorted(path for path in place.iterdir() if path.is_dir() and not dry):
        remove_abandoned(stage)
    names = names_of(patient)
    held = {path: _cases(path) for path in _folders(place, "cases")}
    withdrawn = {path: [case for case in cases if _name(case) in names] for path, cases in held.items()}
    gone = Patient(
        frozenset(case.id for cases in withdrawn.values() for case in cases),
        frozenset(case.image_id for cases in withdrawn.values() for case in cases),
    )
    before = _row(forgotten_at(place), names)
    if not gone.cases and before is None:
        raise StudyError(_unknown(place.name, patient, {_name(case) for cases in held.values() for case in cases}))
    sources = {path for path, cases in withdrawn.items() if any(case.split == "train" for case in cases)}
    adapters = sorted({*(before or {}).get("adapters", ()), *trained_on(place, sources)})
    if not dry:
        called = {_name(case) for cases in withdrawn.values() for case in cases}
        if before is None:
            append("erasure", "a patient withdrew", hospital=place.name, adapters=adapters)
        _write_down(place, names, called, gone.images, adapters)
    removed = [*_remove_checkpoints(place, dry), *(_remove(place, gone, dry) if gone.cases else [])]
    others = [path.name for path in _hospitals() if path != place and _holds(path, names)]
    return Forgotten(tuple(removed), tuple(adapters), before is not None, tuple(others))


def erase_listed(hospital: str) -> int:
    """Remove the patients on a hospital's list from its folders here, as on the machine that `forget` was called on.

    Returns how many folders and files were changed or removed; they change in the shared store too.
    """
    place = ROOT / "hospitals" / hospital
    digests = {digest for row in forgotten_at(place) for digest in (row["digest"], *row["images"])}
    cases = [case for path in _folders(place, "cases") for case in _cases(path) if is_forgotten(case, digests)]
    if not cases:
        return 0
    gone = Patient(frozenset(case.id for case in cases), frozenset(case.image_id for case in cases))
    with alone_at(hospital):
        return len([*_remove_checkpoints(place, dry=False), *_remove(place, gone, dry=False)])


def trained_on(place: Path, sources: Collection[str]) -> set[str]:
    """The folders in `shared/` with tensors learned from some of a hospital's folders, directly or indirectly.

    Indirectly means from folders that the hospital made from these, such as its library, or from other such tensors.
    """
    tensors = {path for path in _all_folders(ROOT / "shared") if _holds_tensors(path)}
    inputs = {path: set(inputs_of(path, former=True)) for path in {*tensors, *_all_folders(place)}}
    found = set(sources)
    while more := {path for path, given in inputs.items() if given & found} - found:
        found |= more
    return found & tensors


def _holds_tensors(path: str) -> bool:
    """Whether a folder in `shared/` has tensors learned from cases, as its stage declares in the manifest (`leaves`).

    Manifests of earlier versions lack `leaves`; then any tensors count.
    """
    try:
        manifest = find(path).manifest()
    except (OSError, ValueError, KeyError):
        return False
    declared = manifest.get("leaves")
    if declared is None:
        return any(name.endswith(".safetensors") for name in manifest["files"])
    return "tensors" in declared


def _remove_checkpoints(place: Path, dry: bool) -> list[tuple[str, str]]:
    """Remove what trainings that were broken off had learned: nobody can tell what of it is of the patient."""
    paths = _folders(place, CHECKPOINT)
    for path in paths:
        if not dry:
            discard(ROOT / path)
    return [(path, "the checkpoint of a training, which begins anew") for path in paths]


def _remove(place: Path, gone: Patient, dry: bool) -> list[tuple[str, str]]:
    removed = []
    page = place / "report.html"
    if page.exists():
        if not dry:
            page.unlink()
        removed.append((page.relative_to(ROOT).as_posix(), "the page (fed-rag report writes it again)"))
    if entries := erase(place, gone.cases, dry):
        removed.append(((place / LOG).relative_to(ROOT).as_posix(), f"answers that it was shown for {entries}"))
    names = {path.name for path in place.iterdir() if path.is_dir()} - {CHECKPOINT}
    stages = sorted(names, key=lambda name: (name == "cases", name))
    paths = [path for stage in stages for path in _folders(place, stage)]
    damaged = {path for path in paths if not is_whole(ROOT / path)}
    start = place.relative_to(ROOT).as_posix() + "/"
    for path in paths:
        lost = path in damaged or any(
            each in damaged or each not in paths for each in inputs_of(path) if each.startswith(start)
        )
        counts = None if lost else rewrite(path, gone, dry)
        if counts is None and not dry:  # an unknown stage, or its data can no longer be identified
            discard(ROOT / path)
        if counts != {}:
            removed.append(
                (path, ", ".join(f"{name} {number}" for name, number in (counts or {}).items()) or "all of it")
            )
    return removed


def _write_down(
    place: Path, names: Iterable[str], called: Iterable[str], images: Iterable[str], adapters: list[str]
) -> None:
    """Record a withdrawal: the digests of the patient's name in the cases and of their images, and the adapters."""
    rows = forgotten_at(place)
    row = _row(rows, names)
    if row is None:
        row = {"digest": name_digest(bare(min(called))), "images": [], "on": f"{datetime.now(UTC):%Y-%m-%d}"}
        rows.append(row)
    row["images"] = sorted({*row["images"], *(name_digest(bare(image)) for image in images)})
    row["adapters"] = adapters
    write_list(place, rows)


def _row(rows: Iterable[dict[str, Any]], names: Iterable[str]) -> dict[str, Any] | None:
    """The recorded withdrawal of one of these names."""
    digests = set(map(name_digest, names))
    return next((row for row in rows if row["digest"] in digests), None)


def _hospitals() -> list[Path]:
    return sorted(path for path in (ROOT / "hospitals").glob("*") if path.is_dir())


def _place(hospital: str) -> Path:
    known = _hospitals()
    for place in known:
        if place.name == hospital:
            return place
    names = ", ".join(place.name for place in known) or f"those in {ROOT / 'hospitals'}, where there is none yet"
    raise StudyError(f"Expected --hospital to be one of {names}, found {hospital!r}.")


def _unknown(hospital: str, patient: str, known: Collection[str]) -> str:
    names = ", ".join(sorted(known)[:5]) + (", ..." if len(known) > 5 else "")
    return (
        f"Expected --patient to be one of the {len(known)} patients (images, where the dataset states no patient) of "
        f"{hospital}, as its table or DICOM file writes the id{f', or as {names}' if known else ''}, found {patient!r}."
    )


def _holds(place: Path, names: Collection[str]) -> bool:
    return any(_name(case) in names for path in _folders(place, "cases") for case in _cases(path))


def _name(case: Case) -> str:
    return case.image_id if case.group is None else case.group


def _cases(path: str) -> list[Case]:
    """A folder's cases; empty if it is damaged, since it then says nothing reliable."""
    try:
        return read_table(ROOT / path / "cases.parquet", Case)
    except (OSError, ValueError):
        return []


def _all_folders(area: Path) -> list[str]:
    return [path for stage in area.glob("[!.]*") if stage.is_dir() for path in _folders(area, stage.name)]


def _folders(area: Path, stage: str) -> list[str]:
    """A stage's folders in an area, relative to the artifacts."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in (area / stage).glob("*")
        if path.is_dir() and not path.name.startswith(".")
    )
