"""Attacks on what hospitals send: false updates, made from the honest ones of the same round.

Attackers are assumed to see all honest updates, as in the literature. An update is its difference from the round's
global adapter, one float64 row of `d` numbers.
"""

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Deltas = NDArray[np.float64]
Attack = Callable[[Deltas, Deltas, np.random.Generator], Deltas]
"""From the attackers' own deltas `(f, d)` and those of the honest hospitals `(n - f, d)` to false ones `(f, d)`."""

SCALE = 10.0
"""Factor of `scaled` and `sign-flip`: one attacker of eight then outweighs all others in a mean."""


def sign_flip(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """The attacker's own delta turned round and enlarged."""
    return -SCALE * own


def scaled(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """The attacker's own delta enlarged (model replacement, Bagdasaryan et al., arXiv 1807.00459)."""
    return SCALE * own


def gaussian(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """Noise of SCALE times the honest deltas' mean norm (Blanchard et al., arXiv 1703.02757)."""
    noise = rng.standard_normal(own.shape)
    norm = np.linalg.norm(honest, axis=1).mean()
    return noise / np.linalg.norm(noise, axis=1, keepdims=True) * norm * SCALE


def little_is_enough(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """A little is enough (Baruch et al., arXiv 1902.06156): the honest mean, less z standard deviations.

    z is the largest shift at which enough honest deltas still lie further out than the attackers' to hide these.
    """
    from scipy.stats import norm

    f, n = len(own), len(own) + len(honest)
    supporters = floor(n / 2 + 1) - f
    z = float(norm.ppf(min(max((n - f - supporters) / (n - f), 0.5), 1 - 1e-9)))
    return np.repeat((honest.mean(0) - z * honest.std(0))[None], f, axis=0)


def inner_product(own: Deltas, honest: Deltas, rng: np.random.Generator) -> Deltas:
    """Inner product manipulation (Xie et al., arXiv 1903.03936): the honest mean turned round, and enlarged.

    With this factor the mean of all deltas points away from the honest mean, at a tenth of its length.
    """
    f = len(own)
    factor = (1.1 * len(honest) + 0.1 * f) / f
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


ATTACKS: Mapping[str, Attack] = {
    "sign-flip": sign_flip,
    "scaled": scaled,
    "gaussian": gaussian,
    "little-is-enough": little_is_enough,
    "inner-product": inner_product,
    "mimic": mimic,
    "nan": not_a_number,
}
"""By the value of `attack.kind`."""


def forged(samples: int) -> int:
    """A count of training cases that lets one hospital decide a weighted mean alone."""
    return samples * 1_000_000


def attack(kind: str, own: Any, honest: Any, seed: int) -> Deltas:
    """The attackers' false deltas, `(f, d)`: the same for the same seed."""
    return ATTACKS[kind](np.asarray(own, np.float64), np.asarray(honest, np.float64), np.random.default_rng(seed))
