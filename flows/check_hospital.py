"""All of a hospital that needs nobody else: its cases, split, audit, library, baselines, and what would leave."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flows.outside import dataset_content
from flows.own_study import own_study, prepare_own
from flows.parts import within_part
from flows.privacy import parameters_of
from flows.told import told_by
from tasks.answer.step import answer_baselines, score_hospital
from tasks.audit.document import table
from tasks.audit.step import audit, read_audit
from tasks.cases.holdout import split_holdout
from tasks.engine.identity import choose_model
from tasks.ingest.step import ingest
from tasks.records import Case, read_table
from tasks.records.federation import HospitalRefs
from tasks.report.results import score_table
from tasks.settings import ModelChoice, Study
from tasks.settings.hospital import AgreementSettings, HospitalSettings
from tasks.store import Ref


@dataclass(frozen=True)
class Checked:
    """What a hospital is told of itself, as tables with the names of their columns."""

    base: str
    """The content of the base, for `agreement.base`."""
    cases: list[dict[str, Any]]
    audit: list[dict[str, Any]]
    """What its own test cases share with its training cases."""
    baselines: list[dict[str, Any]]
    told: list[dict[str, Any]]
    """What would leave, field by field."""


def check_hospital(settings: HospitalSettings, study: Study = Study()) -> Checked:
    """Prepare a hospital as it would be for a study, and measure what needs no training; nothing is sent.

    `study` is what a coordinator would ask for. Raises StudyError as ingestion does.
    """
    study = own_study(settings, study)
    model = choose_model(study.model)
    (hospital,) = prepare_own(settings, study, model).hospitals
    return within_part("check", lambda: _measure(study, settings.agreement, model, hospital), f"check {settings.name}")


def _measure(study: Study, agreement: AgreementSettings, model: ModelChoice, hospital: HospitalRefs) -> Checked:
    dataset = ingest(settings=study.dataset, content=dataset_content(study.dataset), seed=study.seed)
    found = read_audit(audit(cases=hospital.cases, dataset=dataset, seed=study.seed))
    rows = read_table(hospital.cases.folder / "cases.parquet", Case)
    training, held_out = split_holdout(rows, study.federation.holdout, study.federation.held_out_by(study.seed))
    counts = {"training": training, "held out": held_out, "test": [case for case in rows if case.split == "test"]}
    told = told_by(agreement, len(training), len(held_out), parameters_of(hospital.adapter), study.evaluation.min_cell)
    return Checked(
        model.content,
        [
            {"part": name, "cases": len(part), "images": len({case.image_id for case in part})}
            for name, part in counts.items()
        ],
        table(found),
        _baselines(study, hospital),
        [asdict(each) for each in told],
    )


def _baselines(study: Study, hospital: HospitalRefs) -> list[dict[str, Any]]:
    """Scores of what needs no model; none of fewer test cases than the hospital tells anything of."""
    least = study.evaluation.min_cell
    parts: dict[str, Ref] = {name: getattr(hospital, name) for name in ("cases", "features", "library")}
    answered = answer_baselines(hospital=hospital.name, **parts, seed=study.seed)
    scored = score_hospital(hospital=hospital.name, cases=hospital.cases, predictions=[answered], min_cell=least)
    table: dict[str, Any] = dict(score_table([_document(scored)]))
    return [{"baseline": name.replace("_", " ")} | dict(_figures(row)) for name, row in table.items()]


def _figures(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A baseline's figures as text, those that are withheld or not there as a dash."""
    for kind, figure in (("closed", "accuracy"), ("open", "exact_match")):
        value = row[kind].get(figure)
        yield f"{kind} {figure.replace('_', ' ')}", "-" if value is None else f"{value:.3f}"


def _document(scored: Ref) -> Any:
    return json.loads((scored.folder / "scores.json").read_text(encoding="utf-8"))
