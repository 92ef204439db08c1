"""Answers as predictions: what was asked, what was answered, what was shown."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tasks.records import Case, Prediction


def answered(
    configuration: str, hospital: str, cases: Sequence[Case], prompts: Sequence[Any], answers: Sequence[Any]
) -> list[Prediction]:
    """What a model answered, with the cases that its prompts showed and how sure it was.

    `prompts` and `answers` are the engine's `Prompt` and `Answer`, whose module brings torch.
    """
    texts, shown = [answer.text for answer in answers], [prompt.shown_ids for prompt in prompts]
    rows = predictions(configuration, hospital, cases, texts, shown)
    return [replace(row, confidence=answer.confidence) for row, answer in zip(rows, answers, strict=True)]


def predictions(
    configuration: str, hospital: str, cases: Sequence[Case], answers: Sequence[str], shown: Sequence[tuple[str, ...]]
) -> list[Prediction]:
    """Answers as text, each with the ids of the cases that it was given with."""
    return [
        Prediction(configuration, case.id, hospital, case.kind, case.question, case.answer, answer, ids, case.options)
        for case, answer, ids in zip(cases, answers, shown, strict=True)
    ]
