"""What noise is worth: epsilon of the Gaussian mechanism with Poisson sampling, by `dp-accounting`.

Neighbouring data differ by one unit that is there or not. `rdp` is Renyi accounting (Mironov, arXiv 1702.07476); `pld`
is by privacy loss distributions (Koskela et al., arXiv 1906.03049), which is tighter and takes longer.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal

Accountant = Literal["pld", "rdp"]
PRECISION = 2e-3
"""Relative precision of a noise multiplier that is searched for; it is rounded up."""
ORDERS = (*(order / 10 for order in range(20, 110)), *range(11, 64), 128, 256, 512, 1024)
"""Renyi orders: those of `dp-accounting` from 2. Below, its series does not converge at rates that hospitals have."""


def epsilon(sigma: float, rate: float, steps: int, delta: float, accountant: Accountant = "pld") -> float:
    """Epsilon after some steps, an upper bound.

    Args:
        sigma: noise multiplier, the noise's standard deviation over the most that one unit can change a step's sum.
        rate: the chance of each unit to be in a step, independent of all others; 1 is every unit in every step.
        steps: steps that were released.
        delta: the chance that epsilon does not hold.
        accountant: how epsilon is computed.
    """
    return epsilon_in_all([(sigma, rate, steps)], delta, accountant)


def epsilon_in_all(parts: Sequence[tuple[float, float, int]], delta: float, accountant: Accountant = "pld") -> float:
    """Epsilon of several trainings together: for each its sigma, rate and steps, as `epsilon` takes them."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    found = PLDAccountant() if accountant == "pld" else RdpAccountant(orders=ORDERS)
    trained = [part for part in parts if part[2]]
    for sigma, rate, steps in trained:
        noisy = GaussianDpEvent(sigma)
        found.compose(SelfComposedDpEvent(noisy if rate >= 1 else PoissonSampledDpEvent(rate, noisy), steps))
    if not trained:
        return 0.0
    return float(found.get_epsilon(delta))


def sigma_for(most: float, rate: float, steps: int, delta: float, accountant: Accountant = "pld") -> float:
    """The smallest noise multiplier whose epsilon after these steps is at most `most`, within `PRECISION`."""
    from scipy.optimize import brentq

    @cache
    def over(sigma: float) -> float:
        return epsilon(sigma, rate, steps, delta, accountant) - most

    # The tighter accountant begins where the fast one ends: with little noise it takes very long.
    high = 1.0 if accountant == "rdp" else sigma_for(most, rate, steps, delta, "rdp")
    while over(high) > 0:
        high *= 2
    low = 0.85 * high
    while over(low) <= 0:
        low, high = 0.85 * low, low
    sigma = float(brentq(over, low, high, xtol=PRECISION * low))
    while over(sigma) > 0:  # the search ends on either side
        sigma *= 1 + PRECISION
    return sigma


def steps_within(
    most: float, sigma: float, rate: float, delta: float, asked: int, accountant: Accountant = "pld"
) -> int:
    """How many of the `asked` steps can be released before epsilon exceeds `most`."""
    low, high = 0, asked + 1  # `low` steps fit, `high` do not or are not asked for
    while high - low > 1:
        middle = (low + high) // 2 if high <= asked else high - 1
        if epsilon(sigma, rate, middle, delta, accountant) <= most:
            low = middle
        else:
            high = middle
    return low
