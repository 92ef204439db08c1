"""A hospital of a finished run, verified, for answers and exports."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.answer.abstain import held_out_threshold
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.records import Case, Prediction, read_table
from tasks.records.tuning import Tuning, read_tuning
from tasks.settings import ModelChoice, Study
from tasks.store import here
from tasks.store.runs import check_run, open_run, paths_of


@dataclass(frozen=True)
class Place:
    """A hospital of a finished run."""

    run: Path
    study: Study
    model: ModelChoice
    """The base that it was trained on."""
    folders: Mapping[str, Any]
    """The hospital's folders by name, as in `references.json`, relative to the artifacts."""
    adapter: Path
    """Folder of the adapter that it answers with."""
    tuning: Tuning | None
    """How it uses its retrieved cases, if its held-out images decided that."""


def open_place(run: Path, hospital: str, *more: str, personal: bool = False) -> Place:
    """Open a hospital of a run, after verifying the folders that a question needs, and `more` folders by name.

    `personal` takes the hospital's personal adapter instead of the one for all. Raises StudyError if there is no such
    run, hospital or adapter, a folder is missing or has changed, or the base is not the one that the run was made with.
    """
    study, references = open_run(run)
    folders = references["hospitals"].get(hospital)
    if folders is None:
        known = ", ".join(references["hospitals"])
        raise StudyError(f"Expected --hospital to be one of {known}, found {hospital!r}.")
    if personal and "personal" not in folders:
        raise StudyError(
            f"Expected a run with personal adapters for --personal, found none in {run}: set federation.personal."
        )
    adapter = folders["personal"] if personal else references["adapter"] or folders["adapter"]
    check_run(run, [*paths_of(folders, ("cases", "features", "calibration", "tuning", *more)), adapter])
    tuning = read_tuning(here(folders["tuning"])) if "tuning" in folders else None
    return Place(run, study, choose_base(run, study), folders, here(adapter), tuning)


def choose_base(run: Path, study: Study) -> ModelChoice:
    """The base of a run's settings.

    Raises StudyError if it is not the one that the run was made with.
    """
    model = choose_model(study.model)
    content = json.loads((run / "results.json").read_text(encoding="utf-8"))["model"]["content"]
    if model.content != content:
        raise StudyError(
            f"Expected the base {model.name} that {run} was trained on (content {content[-12:]}), found another there "
            f"now ({model.content[-12:]}): put the former back, or run `fed-rag run` again."
        )
    return model


def threshold(place: Place) -> float:
    """As `Reply.threshold`."""
    coverage = place.study.evaluation.coverage
    if coverage == 1:
        return 0.0
    held_out = read_table(here(place.folders["calibration"]) / "predictions.parquet", Prediction)
    cases = read_table(here(place.folders["cases"]) / "cases.parquet", Case)
    return held_out_threshold(held_out, cases, coverage)
