"""Rounding that makes sums of scores exact, so that a pooled score does not depend on the order of addition."""


def exact(score: float) -> float:
    """Round a score to the nearest multiple of 2**-32.

    Floating-point sums of such numbers are exact up to two million rows, so a pooled score has the same bits however
    the rows are divided among hospitals. Rounding also corrects sacrebleu's best score of 100.00000000000004.
    """
    return round(score * 2**32) / 2**32
