"""The outcome of each single answer, as numbers; a hospital computes from them what it shares."""

import hashlib
from collections.abc import Collection, Iterable, Sequence

from tasks.records import Case, Outcome, Prediction
from tasks.score.labels import places
from tasks.score.metrics import answer_scores
from tasks.score.score import ClosedRow, Row, score_row
from tasks.text.vocabulary import MODALITIES, ORGANS, TOPICS, known


def judge(row: Prediction) -> Row:
    """Judge one answer."""
    return score_row(row.prediction, row.reference, row.kind, row.options)


def outcomes(
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    cases: Iterable[Case],
    copied: Collection[str] | None = None,
) -> list[Outcome]:
    """Compute the outcomes of answers.

    Args:
        predictions: the answers.
        rows: the judgement of each answer.
        cases: the hospital's cases, which include all that were asked.
        copied: ids of the images with a copy in training; None if none were looked for.
    """
    by_id = {case.id: case for case in cases}
    return [
        _outcome(prediction, row, by_id[prediction.case_id], copied)
        for prediction, row in zip(predictions, rows, strict=True)
    ]


def number(name: str) -> int:
    """Hash an id to a 63-bit number: among ten million ids, the chance that two collide is 1 in 100,000.

    The number is not secret, as anyone who guesses the id can compute it: it never leaves a hospital.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _outcome(row: Prediction, judged: Row, case: Case, copied: Collection[str] | None) -> Outcome:
    gold, predicted = places(judged) if isinstance(judged, ClosedRow) else (None, None)
    return Outcome(
        configuration=row.configuration,
        hospital=row.hospital,
        case=number(case.id),
        image=number(case.image_id),
        kind=row.kind,
        choice=int(bool(row.options)),
        dataset=case.dataset,
        modality=known(case.modality, MODALITIES),
        organ=known(case.organ, ORGANS),
        topic=known(case.topic, TOPICS),
        training_image=None if copied is None else ("alike" if case.image_id in copied else "none alike"),
        correct=float(judged.correct),
        gold=gold,
        predicted=predicted,
        scores=answer_scores(row.prediction, row.reference, row.kind),
        confidence=row.confidence,
    )
