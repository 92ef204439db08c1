"""What a hospital shares of the answers that it explained: mean shares of the prompt's parts."""

from collections.abc import Sequence

import numpy as np

from tasks.records import Share
from tasks.records.explanations import Means
from tasks.records.run_document import HospitalShares


def mean_shares(rows: Sequence[Share]) -> HospitalShares:
    """Of some explained answers: their number `n`, and `methods`, by method the mean share of each part."""
    by_place: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        by_place.setdefault((row.method, row.part), []).append(row.share)
    methods: Means = {}
    for (method, part), shares in by_place.items():
        methods.setdefault(method, {})[part] = float(np.mean(shares))
    return {"n": len({row.case_id for row in rows}), "methods": methods}
