"""The labels of closed questions that may leave a hospital; the words of an answer may not."""

from tasks.score.score import OTHER, ClosedRow

LABELS = ("yes", "no", "another")
"""Labels of a reference: yes, no, or any other answer (an option, a side, a modality), which all share one label."""
WRONG = len(LABELS)
"""Label index of a wrong answer that is neither yes nor no."""


def places(row: ClosedRow) -> tuple[int, int]:
    """Indices in LABELS of the reference and of the answer; both are the same where the answer is right."""
    gold = _place(row.gold, LABELS.index("another"))
    return gold, gold if row.correct else _place(row.predicted, WRONG)


def row_of(gold: int, predicted: int, choice: bool) -> ClosedRow:
    """The judgement with the labels at these indices: its words may leave the hospital."""
    return ClosedRow(LABELS[gold], OTHER if predicted == WRONG else LABELS[predicted], choice)


def _place(label: str, otherwise: int) -> int:
    return LABELS.index(label) if label in ("yes", "no") else otherwise
