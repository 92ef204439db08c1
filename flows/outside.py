"""Identifies a study's external inputs, beyond its settings: files of models and data, and withdrawals."""

from typing import Any

from tasks.cases.withdrawn import all_digests
from tasks.engine.identity import choose_model, device_of, find_record, identify
from tasks.errors import StudyError
from tasks.ingest.datasets import DATASETS, state
from tasks.retrieve.encoders.open import content_of
from tasks.settings import DatasetSettings, Study
from tasks.store import tree_digest


def outside(study: Study) -> dict[str, Any]:
    """Identifiers of all external inputs, as JSON; if one changes, results may change.

    Raises StudyError if a model or a dataset is not found, and for a study that goes on from an earlier run, whose
    results depend on what was run before it.
    """
    if study.federation.warm_start != "off":
        raise StudyError(
            "Expected federation.warm_start off in a comparison, whose trainings may not follow from one another, "
            f"found {study.federation.warm_start}: set it to off."
        )
    model, start = choose_model(study.model), study.federation.initial_adapter
    return {
        "dataset": dataset_content(study.dataset),
        "control": dataset_content(control) if (control := control_of(study)) else "",
        "writer": writer_of(study),
        "model": model.model_dump(mode="json"),
        "record": find_record(study.model.name),
        "encoder": content_of(study.retrieval.encoding, model),
        "forgotten": all_digests(),
        "start": tree_digest(start) if start else "",
    }


def dataset_content(dataset: DatasetSettings) -> str:
    """Identify the state of the datasets' files."""
    return " ".join(state(name, root) for name, root in dataset.sources)


def control_of(study: Study) -> DatasetSettings | None:
    """The dataset of the audit's negative control; None if there is none.

    Raises StudyError if it is a dataset of the study, whose images would be their own copies, or a folder alone.
    """
    names = [name for name, _ in study.dataset.sources]
    control = study.audit.control
    if control is None and study.audit.control_root:
        raise StudyError(
            f"Expected audit.control beside audit.control_root={study.audit.control_root}, found none: name the "
            "dataset that the folder holds."
        )
    if control in names:
        raise StudyError(
            f"Expected audit.control to be another dataset than dataset.name, found {control} in both: name an "
            "unrelated dataset of similar images."
        )
    if control is None and all(DATASETS[name].drawn for name in names) and "phantom-public" not in names:
        control = "phantom-public"  # beside real images it would tell nothing: no drawn one looks like them
    if control is None:
        return None
    return DatasetSettings(name=control, root=study.audit.control_root, images=study.dataset.images)


def writer_of(study: Study) -> dict[str, str]:
    """The content of the language model that writes questions, and its device; both "" if there is none."""
    if study.synthesis.generator != "model" or not study.synthesis.model:
        return {"content": "", "device": ""}
    return {"content": identify(study.synthesis.model, None), "device": device_of("auto")}
