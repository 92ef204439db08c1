"""What a hospital shares of each single answer: numbers, from which intervals and paired tests are made."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from tasks.evaluate.published import published
from tasks.evaluate.score import Row, score_row
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
    cases = list(cases)
    known = {case.id: (number, case) for number, case in enumerate(cases)}
    images: dict[str, int] = {}
    for case in cases:
        images.setdefault(case.image_id, len(images))
    return [
        _outcome(prediction, row, number, images[case.image_id], case)
        for prediction, row in zip(predictions, rows, strict=True)
        for number, case in [known[prediction.case_id]]
    ]


def _outcome(row: Prediction, judged: Row, number: int, image: int, case: Case) -> Outcome:
    text = score_row(row.prediction, row.reference, "open")
    return Outcome(
        configuration=row.configuration,
        hospital=row.hospital,
        case=number,
        image=image,
        kind=row.kind,
        choice=int(bool(row.options)),
        dataset=case.dataset,
        modality=case.modality,
        organ=case.organ,
        topic=case.topic,
        correct=float(judged.correct),
        **asdict(text),
        **asdict(published(row.prediction, row.reference, row.kind)),
        confidence=row.confidence,
    )
