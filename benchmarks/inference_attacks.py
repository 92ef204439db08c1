"""Attacks that infer from losses whether a case was trained on, and how well they tell: pure functions of arrays.

Each of S adapters was trained on a random half of N cases. Arrays are `(S, N)`: an adapter's loss on a case, and
whether it was trained on it. A score is higher where the attack holds a case for a member.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

Array = NDArray[np.float64]
Members = NDArray[np.bool_]
FALSE_POSITIVES = 0.01
"""The rate of false positives at which true ones are told: an attack that is sure of a few cases has few false ones."""
RESAMPLES = 200


def loss_threshold(losses: Array, members: Members) -> Array:
    """A case of low loss is held for a member (Yeom et al., arXiv 1709.01604); needs nothing but the adapter."""
    return -losses


def lira(losses: Array, members: Members) -> Array:
    """The online likelihood-ratio attack (Carlini et al., arXiv 2112.03570), each adapter once against all others.

    The others are the attacker's shadows, who knows on which cases they were trained. Of each case the attack fits a
    normal distribution to the scaled losses of shadows that had it, and one to those of shadows that had not; both
    widths are the same for all cases, as the paper advises with few shadows.
    """
    confidence = scaled(losses)
    scores = np.empty_like(confidence)
    for target in range(len(losses)):
        shadows = np.arange(len(losses)) != target
        seen, values = members[shadows], confidence[shadows]
        densities = [density(values, chosen, confidence[target]) for chosen in (seen, ~seen)]
        scores[target] = densities[0] - densities[1]
    return scores


def scaled(losses: Array) -> Array:
    """`log(p / (1 - p))` of an answer's probability p = exp(-loss), which is nearly normal over shadows."""
    return np.asarray(-losses - np.log(-np.expm1(-np.maximum(losses, 1e-12))))


def density(values: Array, chosen: Members, at: Array) -> Array:
    """Log density `(N,)` at one value a case, of a normal distribution fitted to some of its shadows' values `(S, N)`.

    A case that no shadow is chosen for gets the mean of all.
    """
    kept = np.where(chosen, values, np.nan)
    counts = chosen.sum(axis=0)
    sums = np.where(chosen, values, 0).sum(axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nanmean(kept))
    freedom = np.maximum(counts - 1, 0).sum()  # each case's mean takes one of its values
    width = np.sqrt(np.nansum((kept - mean) ** 2) / max(freedom, 1))
    return np.asarray(norm.logpdf(at, mean, max(width, 1e-9)))


def auc(scores: Array, members: Members, weights: Array | None = None) -> float:
    """The chance that a member's score is above a non-member's; 0.5 is guessing."""
    return float(roc_auc_score(members, scores, sample_weight=weights))


def true_positives(scores: Array, members: Members, weights: Array | None = None) -> float:
    """The largest share of members that are told where at most 1 % of non-members are taken for one."""
    false, true, _ = roc_curve(members, scores, sample_weight=weights, drop_intermediate=False)
    return float(true[false <= FALSE_POSITIVES].max())


def mean_over_adapters(figure: Callable[..., float], scores: Array, members: Members, weights: Array) -> float:
    """The mean of a figure over all adapters, cases weighted by `(N,)`; those of weight 0 are left out."""
    kept = weights > 0
    return float(np.mean([figure(row[kept], of[kept], weights[kept]) for row, of in zip(scores, members, strict=True)]))


def with_interval(
    figure: Callable[..., float], scores: Array, members: Members, images: Sequence[Hashable], seed: int = 0
) -> tuple[float, float, float]:
    """The mean of a figure over all adapters, with its 95 % interval by bootstrap over images."""
    places = {image: place for place, image in enumerate(dict.fromkeys(images))}
    cluster = np.array([places[image] for image in images])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), RESAMPLES)
    drawn = [mean_over_adapters(figure, scores, members, each[cluster].astype(float)) for each in counts]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return mean_over_adapters(figure, scores, members, np.ones(len(images))), float(low), float(high)
