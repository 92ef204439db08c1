"""What a hospital knows of each single answer: numbers, from which it makes what it shares."""

import hashlib
from collections.abc import Iterable, Sequence

from tasks.records import Case, Outcome, Prediction
from tasks.score.labels import places
from tasks.score.metrics import answer_scores
from tasks.score.score import ClosedRow, Row, score_row
from tasks.text.vocabulary import MODALITIES, ORGANS, TOPICS, known


def judge(row: Prediction) -> Row:
    """The judgement on one answer."""
    return score_row(row.prediction, row.reference, row.kind, row.options)


def outcomes(predictions: Sequence[Prediction], rows: Sequence[Row], cases: Iterable[Case]) -> list[Outcome]:
    """The outcomes of some answers.

    Args:
        predictions: the answers.
        rows: the judgement on each.
        cases: the hospital's own, which hold those that were asked.
    """
    own = {case.id: case for case in cases}
    return [
        _outcome(prediction, row, own[prediction.case_id]) for prediction, row in zip(predictions, rows, strict=True)
    ]


def number(name: str) -> int:
    """A number that follows from an id alone, 63 bits: among ten million ids, two alike are one chance in 100,000.

    It hides nothing, since whoever guesses the id gets the number: it never leaves a hospital.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _outcome(row: Prediction, judged: Row, case: Case) -> Outcome:
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
        correct=float(judged.correct),
        gold=gold,
        predicted=predicted,
        scores=answer_scores(row.prediction, row.reference, row.kind),
        confidence=row.confidence,
    )
