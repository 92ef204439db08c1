"""How a cost grows with a size: the exponent of its growing part, whatever constant part it has."""

from collections.abc import Sequence
from statistics import median

import numpy as np
from scipy.optimize import minimize_scalar

LINEAR = 1.1
"""Largest exponent that passes for linear growth."""
LAST = 3
"""How many of the largest sizes are fitted."""
STEEPEST = 4.0


def exponent(sizes: Sequence[float], costs: Sequence[float], least: float = 0.0) -> float | None:
    """The p of `cost = constant + factor * size**p`, by least squares of logarithms over the largest sizes.

    The constant is taken out exactly: what is fitted is how much more the `LAST` largest sizes cost than the smallest
    one, as `factor * (size**p - smallest**p)`. None where fewer than two of them cost at least `least` more than the
    smallest: then nothing grows that could be told from chance.

    Args:
        sizes: ascending; the smallest may be 0.
        costs: of each size.
        least: of the growth of a cost that counts.
    """
    first, *others = sizes
    grown = [(size, cost - costs[0]) for size, cost in zip(others, costs[1:], strict=True)][-LAST:]
    grown = [(size, more) for size, more in grown if more > 0]
    if len(grown) < 2 or grown[-1][1] < least:
        return None
    reached, more = (np.asarray(each, float) for each in zip(*grown, strict=True))

    def misfit(power: float) -> float:
        factors = np.log(more) - np.log(reached**power - float(first) ** power)
        # What disturbs a measurement by so many seconds is a smaller part of a larger growth.
        return float(np.cov(factors, aweights=more, ddof=0))

    return float(minimize_scalar(misfit, bounds=(0.01, STEEPEST), method="bounded").x)


def of_turns(sizes: Sequence[float], turns: Sequence[Sequence[float]], least: float) -> tuple[float, ...]:
    """The exponent of each turn in which the cost grew, ascending."""
    return tuple(sorted(found for costs in turns if (found := exponent(sizes, costs, least)) is not None))


def worse_than_linear(exponents: Sequence[float]) -> bool:
    """Whether a cost grows faster than its size in the median of the turns, and in every one of them."""
    return bool(exponents) and median(exponents) > LINEAR and min(exponents) > LINEAR
