"""Turns answers into `Prediction` records: the question, the answer, and the retrieved cases in the prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tasks.records import Case, Prediction


def answered(
    configuration: str, hospital: str, cases: Sequence[Case], prompts: Sequence[Any], answers: Sequence[Any]
) -> list[Prediction]:
    """Predictions of a model, with its confidence and the ids of the cases shown in its prompts.

    `prompts` and `answers` are the engine's `Prompt` and `Answer`; they are typed as Any to avoid importing torch.
    """
    texts, retrieved_ids = [answer.text for answer in answers], [prompt.retrieved_ids for prompt in prompts]
    rows = predictions(configuration, hospital, cases, texts, retrieved_ids)
    return [replace(row, confidence=answer.confidence) for row, answer in zip(rows, answers, strict=True)]


def predictions(
    configuration: str,
    hospital: str,
    cases: Sequence[Case],
    answers: Sequence[str],
    retrieved_ids: Sequence[tuple[str, ...]],
) -> list[Prediction]:
    """Predictions from answers as text; `retrieved_ids` holds the ids of the retrieved cases behind each answer."""
    return [
        Prediction(configuration, case.id, hospital, case.kind, case.question, case.answer, answer, ids, case.options)
        for case, answer, ids in zip(cases, answers, retrieved_ids, strict=True)
    ]
