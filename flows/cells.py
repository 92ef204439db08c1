"""Runs or reuses one study of a comparison, and reads finished runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from flows.fed_rag import fed_rag
from flows.outside import outside
from tasks.engine.identity import identify, resolve
from tasks.errors import StudyError
from tasks.pretrain.step import make_twin
from tasks.records.run_document import RunDocument
from tasks.settings import Study
from tasks.settings.comparison import Cell, changed
from tasks.store import ROOT, Ref, find, stage_key, writing
from tasks.store.code import code_digest
from tasks.store.runs import check_run, open_run, paths_of

TWINS = ("llava-med-7b",)
"""Presets that have a twin, which stands in for them if their weights are absent."""


def run_cell(cell: Cell) -> tuple[Path, bool]:
    """Run the cell's study, or reuse a finished run; returns the run's folder, and whether it was reused.

    A run is reused if nothing has changed since: settings, code, files that the settings name, and withdrawals. All its
    folders must still be whole. Otherwise the study runs again, and reuses the stages that are left.
    """
    settings = {"study": cell.study.model_dump(mode="json"), "outside": outside(cell.study)}
    key = stage_key("cell", settings, [], code_digest(["flows.fed_rag"]))
    record = ROOT / "source" / "cells" / key / "cell.json"
    try:
        run = ROOT / "runs" / json.loads(record.read_text(encoding="utf-8"))["run"]
        _, references = open_run(run)
        check_run(run, [path for places in references["hospitals"].values() for path in paths_of(places, places)])
        return run, True
    except (OSError, ValueError, KeyError, StudyError):
        run = Path(fed_rag(cell.study))
    with writing("source", "cells", key) as folder:
        folder.write_json("cell.json", {"cell": cell.title, "run": run.name})
    return run, False


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
    """Replace presets whose weights are absent by their twins; returns the cells, and the twin's folder by preset.

    Raises StudyError if any other model is absent, before anything runs.
    """
    twins: dict[str, str] = {}
    for name, revision in dict.fromkeys((cell.study.model.name, cell.study.model.revision) for cell in cells):
        resolve(name)  # raises if a name is ambiguous, which has no twin
        try:
            identify(name, revision)
        except StudyError:
            if name not in TWINS:
                raise
            twins[name] = str(make_twin(of=name, seed=0).folder)
    return [Cell(cell.part, cell.name, cell.split, cell.seed, _replaced(cell.study, twins)) for cell in cells], twins


def _replaced(study: Study, twins: dict[str, str]) -> Study:
    if study.model.name not in twins:
        return study
    return changed(study, {"model.name": twins[study.model.name], "model.revision": None})
