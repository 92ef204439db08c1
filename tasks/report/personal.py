"""What personal adapters bring: right answers beside those with the adapter for all, and the gain with its interval."""

from collections.abc import Sequence

import numpy as np

from tasks.records.run_document import Gain, Personal
from tasks.records.shared_documents import GainDocument
from tasks.score.statistics import estimate


def personal_gain(configuration: str, shared: Sequence[GainDocument], seed: int) -> Personal | None:
    """The `personal` of `results.json`; None where hospitals have no personal adapters.

    Args:
        configuration: what the scores with personal adapters are called.
        shared: each hospital's `gain.json`.
        seed: of the 95 % bootstrap intervals over images.
    """
    if not shared:
        return None
    sums = {each["hospital"]: np.array(each["images"], float).reshape(-1, 3) for each in shared}
    hospitals = {hospital: _gain(rows, seed) for hospital, rows in sums.items()}
    return {
        "configuration": configuration,
        **_gain(np.concatenate(list(sums.values())), seed),
        "hospitals": hospitals,
        "worst": {"for_all": _worst("for_all", hospitals), "personal": _worst("personal", hospitals)},
    }


def _gain(sums: np.ndarray, seed: int) -> Gain:
    """The shares of right answers, and their difference by pairs, from sums over images `(C, 3)`."""
    n = int(sums[:, 0].sum())
    if not n:
        return {"n": 0, "for_all": None, "personal": None, "gain": None}
    _, for_all, personal = sums.sum(axis=0).tolist()
    found = estimate(sums, lambda each: (each[:, 2] - each[:, 1]) / each[:, 0], seed)
    return {
        "n": n,
        "for_all": for_all / n,
        "personal": personal / n,
        "gain": {"value": found.value, "interval": found.interval},
    }


def _worst(which: str, hospitals: dict[str, Gain]) -> str | None:
    """The hospital with the smallest share of right answers; None where none tells its share."""
    known = {name: share for name, each in hospitals.items() if (share := dict(each)[which]) is not None}
    return min(known, key=lambda name: known[name]) if known else None  # type: ignore[arg-type, return-value]


def personal_rows(found: Personal) -> list[tuple[str, ...]]:
    """The `personal` of `results.json` as text: headings, a row for all hospitals, then one for each."""
    rows = [("all hospitals", found), *found["hospitals"].items()]
    return [
        ("right answers", "n", "adapter for all", "personal", "gain"),
        *(
            (name, str(row["n"]), _share(row["for_all"]), _share(row["personal"]), _difference(row))
            for name, row in rows
        ),
    ]


def personal_sentence(found: Personal) -> str:
    """How to read the table, and which hospital is worst off."""
    text = "Closed answers that are right and open ones that match exactly; gains in points, with 95 % intervals by "
    text += "bootstrap over images, of pairs of answers to the same question; one seed."
    worst = found["worst"]
    if worst["for_all"] is None:
        return text
    return f"{text} Worst off: {worst['for_all']} with the adapter for all, {worst['personal']} with its own."


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference(row: Gain) -> str:
    if row["gain"] is None:
        return "-"
    interval = row["gain"]["interval"]
    between = "" if interval is None else f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    return f"{100 * row['gain']['value']:+.1f}{between}"
