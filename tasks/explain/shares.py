"""Mean shares of the prompt's parts, which a hospital shares of its explained answers."""

from collections.abc import Sequence

import numpy as np

from tasks.records import Share
from tasks.records.explanations import Means
from tasks.records.run_document import HospitalShares


def mean_shares(rows: Sequence[Share]) -> HospitalShares:
    """The number `n` of explained answers, and in `methods`, by method, the mean share of each part."""
    by_place: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        by_place.setdefault((row.method, row.part), []).append(row.share)
    methods: Means = {}
    for (method, part), shares in by_place.items():
        methods.setdefault(method, {})[part] = float(np.mean(shares))
    return {"n": len({row.case_id for row in rows}), "methods": methods}
