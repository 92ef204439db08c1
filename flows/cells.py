"""One study of a comparison: run, or found where it was run before; and what is read of a finished one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.fed_rag import content, fed_rag
from flows.run_folder import open_run
from tasks.comparison import Cell, changed
from tasks.engine.identity import identify, resolve
from tasks.errors import StudyError
from tasks.evaluate.outcomes import judge
from tasks.evaluate.outcomes import outcomes as of_answers
from tasks.pretrain.step import make_twin
from tasks.records import Case, Outcome, Prediction, read_table
from tasks.settings import Study
from tasks.store import MANIFEST, ROOT, Ref, stage_key, writing

TWINS = ("llava-med-7b",)
"""Presets that have a twin, for where their weights are absent."""
BASELINES = ("base", "majority", "question_only", "copy_nearest")
CODE = (".", "../flows")
"""All of it: a cell is found again only if no line has changed. Its stages look closer."""


def run_cell(cell: Cell) -> tuple[Path, bool]:
    """The folder of the cell's finished run, and whether it was found rather than run.

    What was shared of its scores must still be whole; else the study runs again, and finds what is left of its stages.
    """
    model = identify(cell.study.model.name, cell.study.model.revision)
    settings = {"study": cell.study.model_dump(mode="json"), "content": content(cell.study), "model": model}
    key = stage_key("cell", settings, [], CODE)
    record = ROOT / "source" / "cells" / key / "cell.json"
    try:
        run = ROOT / "runs" / json.loads(record.read_text(encoding="utf-8"))["run"]
        json.loads((run / "results.json").read_text(encoding="utf-8"))
        for ref in references(run, "scores"):
            ref.verified()
        return run, True
    except (OSError, ValueError, KeyError, StudyError):
        run = Path(fed_rag(cell.study))
    with writing("source", "cells", key) as folder:
        folder.write_json("cell.json", {"cell": cell.title, "run": run.name})
    return run, False


def references(run: Path, name: str) -> list[Ref]:
    """What a finished run's hospitals have under a name, in their order.

    Raises StudyError or OSError where it is gone.
    """
    _, places = open_run(run)
    paths: list[str] = []
    for hospital in places["hospitals"].values():
        paths += hospital[name] if isinstance(hospital[name], list) else [hospital[name]]
    digests = [json.loads((ROOT / path / MANIFEST).read_text(encoding="utf-8"))["digest"] for path in paths]
    return [Ref(path=path, digest=digest) for path, digest in zip(paths, digests, strict=True)]


def outcomes(run: Path) -> dict[str, list[Outcome]]:
    """A finished run's outcomes by configuration; the trained one's name is `trained`.

    They are judged anew from the hospitals' own files, which a comparison, a simulation on one machine, may read: what
    hospitals share does not tell which case or image is whose.
    """
    study, places = open_run(run)
    found: dict[str, list[Outcome]] = {}
    for folders in places["hospitals"].values():
        paths = [ROOT / place / "predictions.parquet" for place in folders["predictions"]]
        answers = [row for path in paths for row in read_table(path, Prediction)]
        cases = read_table(ROOT / folders["cases"] / "cases.parquet", Case)
        for row in of_answers(answers, [judge(answer) for answer in answers], cases):
            name = "trained" if row.configuration == study.configuration else row.configuration
            found.setdefault(name, []).append(row)
    return found


def results(run: Path) -> dict[str, Any]:
    """The document of a finished run."""
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def with_stand_ins(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, str]]:
    """The cells, those of a preset without weights with its twin instead; and the twin's folder by preset.

    Raises StudyError where any other model is absent, before anything is run.
    """
    twins: dict[str, str] = {}
    for name, revision in dict.fromkeys((cell.study.model.name, cell.study.model.revision) for cell in cells):
        resolve(name)  # what may be two models has no stand-in
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
