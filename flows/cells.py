"""Runs or reuses the studies of a comparison, and reads finished runs."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.fed_rag import fed_rag
from flows.outside import outside
from flows.runners.runner import spread
from tasks.engine.identity import identify, resolve
from tasks.errors import StudyError
from tasks.ingest.datasets import DATASETS
from tasks.pretrain.step import make_twin
from tasks.records.run_document import RunDocument
from tasks.settings import Study
from tasks.settings.comparison import Cell, changed
from tasks.store import ROOT, Ref, find, here, stage_key, writing
from tasks.store.code import code_digest
from tasks.store.runs import check_run, open_run, paths_of

TWINS = ("llava-med-7b",)
"""Presets that have a twin, which stands in for them if their weights are absent."""
SMALL = "smol-clip"
"""The small model of that shape (tower, projector, text model) with real weights; `fed-rag compose` writes it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one study of a comparison."""

    cell: Cell
    run: Path | None
    """Its folder; None if the study failed."""
    reason: str
    """Why it failed."""
    seconds: float | None
    """How long it ran; None if a finished run was found, or it failed."""


def run_cell(cell: Cell) -> tuple[Path, bool]:
    """Run the cell's study, or reuse a finished run; returns the run's folder, and whether it was reused.

    A run is reused if nothing has changed since: settings, code, files that the settings name, and withdrawals. All its
    folders must still be whole. Otherwise the study runs again, and reuses the stages that are left.
    """
    settings = {"study": cell.study.model_dump(mode="json"), "outside": outside(cell.study)}
    key = stage_key("cell", settings, [], code_digest(["flows.fed_rag"]))
    record = f"source/cells/{key}"
    try:
        run = ROOT / "runs" / json.loads((here(record) / "cell.json").read_text(encoding="utf-8"))["run"]
        _, references = open_run(run)
        check_run(run, [path for places in references["hospitals"].values() for path in paths_of(places, places)])
        return run, True
    except (OSError, ValueError, KeyError, StudyError):
        run = Path(fed_rag(cell.study))
    with writing("source", "cells", key) as folder:
        folder.write_json("cell.json", {"cell": cell.title, "run": run.name})
    return run, False


def run_cells(cells: Sequence[Cell]) -> Iterator[Outcome]:
    """Run or reuse each cell's study, in order; on a cluster, as many at once as it has workers.

    Outcomes come in the order of the cells, each as soon as those before it are there.
    """
    return spread(_outcome, cells)


def _outcome(cell: Cell) -> Outcome:
    began = time.perf_counter()
    try:
        run, found = run_cell(cell)
    except StudyError as error:
        return Outcome(cell, None, str(error), None)
    return Outcome(cell, run, "", None if found else time.perf_counter() - began)


def references(run: Path, name: str) -> list[Ref]:
    """The folders of a finished run's hospitals under a name, in the order of the hospitals.

    Raises StudyError if one is missing or has changed.
    """
    _, places = open_run(run)
    paths = [path for hospital in places["hospitals"].values() for path in paths_of(hospital, [name])]
    check_run(run, paths)
    return [find(path) for path in paths]


def results(run: Path) -> RunDocument:
    """The content of a finished run's `results.json`."""
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def with_stand_ins(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, str]]:
    """Replace presets whose weights are absent; returns the cells, and by preset the model in its place.

    On real images that is `smol-clip`, if it was composed; else a twin's folder. Raises StudyError if any other model
    is absent, before anything runs.
    """
    stand_ins: dict[str, str] = {}
    for cell in cells:
        study, name = cell.study, cell.study.model.name
        if name in stand_ins:
            continue
        resolve(name)  # raises if a name is ambiguous, which has no stand-in
        if name in TWINS and not _is_there(name, study.model.revision):
            stand_ins[name] = SMALL if _is_real(study) and _is_there(SMALL) else str(make_twin(of=name, seed=0).folder)
        else:
            identify(name, study.model.revision)
    return [replace(cell, study=_replaced(cell.study, stand_ins)) for cell in cells], stand_ins


def _is_real(study: Study) -> bool:
    """Whether the study's images are published ones, not drawn."""
    return not any(DATASETS[name].drawn for name, _ in study.dataset.sources)


def _is_there(name: str, revision: str | None = None) -> bool:
    try:
        return bool(identify(name, revision))
    except StudyError:
        return False


def _replaced(study: Study, stand_ins: dict[str, str]) -> Study:
    if study.model.name not in stand_ins:
        return study
    stand_in = stand_ins[study.model.name]
    changes: dict[str, Any] = {"model.name": stand_in, "model.revision": None}
    if stand_in == SMALL:  # its projector is new: until it has learned, images tell the model nothing
        changes["lora.projector"] = True
    return changed(study, changes)
