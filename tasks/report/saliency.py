"""Where answers come from, over hospitals: mean shares of the prompt's parts."""

from collections.abc import Sequence

import numpy as np

from tasks.records.explanations import Means
from tasks.records.run_document import HospitalShares, SharesOfParts
from tasks.records.shared_documents import SharesDocument


def share_table(configuration: str, shared: Sequence[SharesDocument]) -> dict[str, SharesOfParts]:
    """By configuration: the means over all hospitals' explained answers, and those of each under `hospitals`.

    `shared` is each hospital's `shares.json`; hospitals of which no answer was explained, or that withhold the few that
    were, are left out, and nothing is told where all are.
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


def share_rows(told: HospitalShares) -> list[tuple[str, ...]]:
    """A configuration's entry of `results["saliency"]` as text: headings, then a row a method."""
    parts = next(iter(told["methods"].values()))
    rows = [(method, *(f"{share:.3f}" for share in shares.values())) for method, shares in told["methods"].items()]
    heading = "of 1 answer" if told["n"] == 1 else f"of {told['n']} answers"
    return [(heading, *(part.replace("_", " ") for part in parts)), *rows]
