"""What a hospital shares of each single answer: numbers, from which intervals and paired tests are made."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from tasks.evaluate.published import disagreeing, published
from tasks.evaluate.score import ClosedRow, Row, score_row
from tasks.records import Case, Outcome, Prediction


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
    known = {case.id: case for case in cases}
    return [
        _outcome(prediction, row, known[prediction.case_id]) for prediction, row in zip(predictions, rows, strict=True)
    ]


def number(name: str) -> int:
    """A number that follows from an id alone, 63 bits: among ten million ids, two alike are one chance in 100,000."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _outcome(row: Prediction, judged: Row, case: Case) -> Outcome:
    text = score_row(row.prediction, row.reference, "open")
    theirs = published(row.prediction, row.reference, row.kind)
    return Outcome(
        configuration=row.configuration,
        hospital=row.hospital,
        case=number(case.id),
        image=number(case.image_id),
        kind=row.kind,
        choice=int(bool(row.options)),
        dataset=case.dataset,
        modality=case.modality,
        organ=case.organ,
        topic=case.topic,
        correct=float(judged.correct),
        gold=number(judged.gold) if isinstance(judged, ClosedRow) else None,
        predicted=number(judged.predicted) if isinstance(judged, ClosedRow) else None,
        **asdict(text),
        **asdict(theirs),
        confidence=row.confidence,
        **disagreeing(theirs, correct=judged.correct),
    )
