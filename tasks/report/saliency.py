"""Where answers come from: mean shares of the prompt's parts, over hospitals."""

from collections.abc import Sequence

import numpy as np

from tasks.records.explanations import Means
from tasks.records.run_document import HospitalShares, SharesOfParts
from tasks.records.shared_documents import SharesDocument


def share_table(configuration: str, shared: Sequence[SharesDocument]) -> dict[str, SharesOfParts]:
    """By configuration: mean shares over all hospitals' explained answers, and each hospital's under `hospitals`.

    `shared` is each hospital's `shares.json`. Hospitals without explained answers, or that withhold them as too few,
    are left out; the result is empty where all are.
    """
    of: dict[str, HospitalShares] = {
        each["hospital"]: {"n": each["n"], "methods": each["methods"]} for each in shared if each["n"]
    }
    if not of:
        return {}
    counts = [each["n"] for each in of.values()]
    first = next(iter(of.values()))["methods"]
    methods: Means = {
        method: {
            part: float(np.average([each["methods"][method][part] for each in of.values()], weights=counts))
            for part in parts
        }
        for method, parts in first.items()
    }
    return {configuration: {"n": sum(counts), "methods": methods, "hospitals": of}}


def share_rows(saliency: HospitalShares) -> list[tuple[str, ...]]:
    """A configuration's entry of `results["saliency"]` as text: headings, then a row for each method."""
    parts = next(iter(saliency["methods"].values()))
    rows = [(method, *(f"{share:.3f}" for share in shares.values())) for method, shares in saliency["methods"].items()]
    heading = "of 1 answer" if saliency["n"] == 1 else f"of {saliency['n']} answers"
    return [(heading, *(part.replace("_", " ") for part in parts)), *rows]
