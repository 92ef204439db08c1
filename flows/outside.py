"""What a study reads that its settings name and do not hold: files of models and data, and withdrawals."""

from typing import Any

from tasks.cases.withdrawn import all_digests
from tasks.engine.identity import choose_model, device_of, identify
from tasks.ingest.datasets import state
from tasks.retrieve.encoders.open import content_of
from tasks.settings import Study


def outside(study: Study) -> dict[str, Any]:
    """All of it, as JSON takes it: where a part is another, so may be the results.

    Raises StudyError where a model or a dataset is not to be found.
    """
    model = choose_model(study.model)
    return {
        "dataset": dataset_content(study),
        "writer": writer_of(study),
        "model": model.model_dump(mode="json"),
        "encoder": content_of(study.retrieval.encoding, model),
        "forgotten": all_digests(),
    }


def dataset_content(study: Study) -> str:
    """The state of the datasets' files."""
    return " ".join(state(name, root) for name, root in study.dataset.sources)


def writer_of(study: Study) -> dict[str, str]:
    """The state of the files of the language model that writes questions, and where it runs; "" where none does."""
    if study.synthesis.generator != "model" or not study.synthesis.model:
        return {"content": "", "device": ""}
    return {"content": identify(study.synthesis.model, None), "device": device_of("auto")}
