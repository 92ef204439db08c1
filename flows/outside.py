"""Identifies a study's external inputs, beyond its settings: files of models and data, and withdrawals."""

from typing import Any

from tasks.cases.withdrawn import all_digests
from tasks.engine.identity import choose_model, device_of, find_record, identify
from tasks.ingest.datasets import state
from tasks.retrieve.encoders.open import content_of
from tasks.settings import Study


def outside(study: Study) -> dict[str, Any]:
    """Identifiers of all external inputs, as JSON; if one changes, results may change.

    Raises StudyError if a model or a dataset is not found.
    """
    model = choose_model(study.model)
    return {
        "dataset": dataset_content(study),
        "writer": writer_of(study),
        "model": model.model_dump(mode="json"),
        "record": find_record(study.model.name),
        "encoder": content_of(study.retrieval.encoding, model),
        "forgotten": all_digests(),
    }


def dataset_content(study: Study) -> str:
    """Identify the state of the datasets' files."""
    return " ".join(state(name, root) for name, root in study.dataset.sources)


def writer_of(study: Study) -> dict[str, str]:
    """The content of the language model that writes questions, and its device; both "" if there is none."""
    if study.synthesis.generator != "model" or not study.synthesis.model:
        return {"content": "", "device": ""}
    return {"content": identify(study.synthesis.model, None), "device": device_of("auto")}
