"""Scores as numbers whose sums are exact, so that a pooled score does not depend on who adds what up first."""


def exact(score: float) -> float:
    """The nearest multiple of 2**-32.

    Floating-point sums of such numbers are exact up to two million rows, so a pooled score is the same bits however
    the rows were shared out. It also takes away what makes sacrebleu's best score 100.00000000000004.
    """
    return round(score * 2**32) / 2**32
