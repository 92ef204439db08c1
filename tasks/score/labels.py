"""The labels of closed questions that may leave a hospital: an answer's own words may not."""

from tasks.score.score import OTHER, ClosedRow

LABELS = ("yes", "no", "another")
"""The reference: yes, no, or any other answer (an option, a side, a modality), all of which are one label."""
WRONG = len(LABELS)
"""The place of an answer that is none of them: wrong, and neither yes nor no."""


def places(row: ClosedRow) -> tuple[int, int]:
    """The places in LABELS of what was right and of what was answered; the same where the answer is right."""
    gold = _place(row.gold, LABELS.index("another"))
    return gold, gold if row.correct else _place(row.predicted, WRONG)


def row_of(gold: int, predicted: int, choice: bool) -> ClosedRow:
    """The judgement with labels at these places, in words that may be told."""
    return ClosedRow(LABELS[gold], OTHER if predicted == WRONG else LABELS[predicted], choice)


def _place(label: str, otherwise: int) -> int:
    return LABELS.index(label) if label in ("yes", "no") else otherwise
