"""A study as one hospital on a machine of its own has a part in it: of its own cases and base."""

from dataclasses import replace

from flows.parts import within_part
from flows.prepare import Prepared, prepare, preparing_steps
from flows.progress import Steps
from tasks.settings import ModelChoice, PartitionSettings, Study
from tasks.settings.hospital import HospitalSettings


def own_study(settings: HospitalSettings, asked: Study = Study()) -> Study:
    """A study as a hospital runs its part of it: of its own cases and base, all else as it is asked.

    The split is the hospital's own, and figures of fewer cases are withheld than either side wants told.
    """
    values = asked.model_dump()
    values |= {name: getattr(Study(), name).model_dump() for name in ("synthesis", "audit", "engine")}
    values["dataset"], values["model"] = settings.dataset.model_dump(), settings.model.model_dump()
    values["partition"] = PartitionSettings(hospitals=1, scheme="iid", disjoint=settings.disjoint).model_dump()
    values["evaluation"]["min_cell"] = max(asked.evaluation.min_cell, settings.agreement.min_cell)
    return Study.model_validate(values)


def prepare_own(settings: HospitalSettings, study: Study, model: ModelChoice) -> Prepared:
    """Make a hospital's cases, split, audit, features and library, under the name that it has in the federation."""
    prepared = within_part("prepare", lambda: prepare(study, model, Steps("prepare", preparing_steps(study))))
    (only,) = prepared.hospitals
    return replace(prepared, hospitals=[only.model_copy(update={"name": settings.name})])
