"""A random sample of a hospital's cases."""

from collections.abc import Sequence

import numpy as np

from tasks.records import Case
from tasks.store import derived_seed


def sample(cases: Sequence[Case], most: int, seed: int) -> list[Case]:
    """At most `most` of the cases, drawn at random, in their original order."""
    if len(cases) <= most:
        return list(cases)
    chosen = np.random.default_rng(derived_seed(seed, "sample")).choice(len(cases), most, replace=False)
    return [cases[place] for place in sorted(chosen.tolist())]
