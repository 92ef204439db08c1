"""Attacks on what hospitals send: false updates, made from the honest ones of the same round.

Attackers are assumed to see all honest updates, and to know how long an update the door lets in, as in the literature.
An update is its difference from the round's global adapter, one float64 row of `d` numbers.
"""

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Deltas = NDArray[np.float64]
Attack = Callable[[Deltas, Deltas, np.random.Generator], Deltas]
"""From the attackers' own deltas `(f, d)` and those of the honest hospitals `(n - f, d)` to false ones `(f, d)`."""

LENGTH = 9.0
"""Length of enlarged updates in multiples of the honest median: the door turns away what is ten times the round's."""
LEAST_SHIFT = 1.5
"""Standard deviations by which `little_is_enough` moves the mean at least: as in ByzFL, by default."""


def sign_flip(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """The attacker's own delta turned round and enlarged."""
    return -enlarged(own, honest)


def scaled(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """The attacker's own delta enlarged."""
    return enlarged(own, honest)


def gaussian(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """Noise, enlarged (Blanchard et al., arXiv 1703.02757)."""
    return enlarged(rng.standard_normal(own.shape), honest)


def little_is_enough(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """A little is enough (Baruch et al., arXiv 1902.06156): the honest mean, less z standard deviations.

    The paper's z is 0 among so few hospitals as 8, which is no attack: z is at least LEAST_SHIFT.
    """
    z = max(hidden_shift(len(own) + len(honest), len(own)), LEAST_SHIFT)
    return np.repeat((honest.mean(0) - z * honest.std(0))[None], len(own), axis=0)


def hidden_shift(n: int, f: int) -> float:
    """The paper's z: the largest shift at which enough honest deltas lie further out than the attackers' to hide these.

    Args:
        n: number of hospitals.
        f: number of attackers among them.
    """
    from scipy.stats import norm

    supporters = floor(n / 2 + 1) - f
    return float(norm.ppf(min(max((n - f - supporters) / (n - f), 0.5), 1 - 1e-9)))


def inner_product(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """Inner product manipulation (Xie et al., arXiv 1903.03936): the honest mean turned round, and enlarged.

    With this factor the mean of all deltas is the honest mean turned round, so that training goes backwards.
    """
    f, n = len(own), len(own) + len(honest)
    factor = (len(honest) + n) / f
    return np.repeat(-factor * honest.mean(0)[None], f, axis=0)


def mimic(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """All attackers send one honest hospital's delta, which then counts for more (arXiv 2006.09365).

    It is the one that lies furthest along the direction in which the honest deltas differ most.
    """
    centred = honest - honest.mean(0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    return np.repeat(honest[np.argmax(np.abs(centred @ direction))][None], len(own), axis=0)


def not_a_number(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """NaN in every place: one such update makes a mean NaN for all."""
    return np.full_like(own, np.nan)


def turned_round(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """The attacker's own delta turned round, as long as it was: it takes a forged count to outweigh the others."""
    return -own


def replacing(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """Model replacement (Bagdasaryan et al., arXiv 1807.00459): in the mean, the attackers' deltas count whole."""
    return own * (len(own) + len(honest)) / len(own)


def enlarged(deltas: Deltas, honest: Deltas) -> Deltas:
    """Rows of any length in their directions, LENGTH times as long as the median honest row."""
    return deltas / np.linalg.norm(deltas, axis=1, keepdims=True) * LENGTH * np.median(np.linalg.norm(honest, axis=1))


ATTACKS: Mapping[str, Attack] = {
    "sign-flip": sign_flip,
    "scaled": scaled,
    "gaussian": gaussian,
    "little-is-enough": little_is_enough,
    "inner-product": inner_product,
    "mimic": mimic,
    "nan": not_a_number,
    "forged-counts": turned_round,
    "backdoor": replacing,
}
"""By name, the attacks on what is sent; `backdoor` is one on training cases too, `label-flip` on these alone."""
FORGED = "forged-counts"
"""The attack in which a hospital also claims more training cases than it has."""


def forged(samples: int) -> int:
    """A count of training cases that lets one hospital decide a weighted mean alone."""
    return samples * 1_000_000


def attack(kind: str, own: Any, honest: Any, seed: int) -> Deltas:
    """The attackers' false deltas, `(f, d)`: the same for the same seed."""
    return ATTACKS[kind](np.asarray(own, np.float64), np.asarray(honest, np.float64), np.random.default_rng(seed))
