"""What a study says of withheld answers, at a coverage that the user sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.records.abstention import COLUMNS, KINDS
from tasks.score.statistics import Estimate, Statistic, estimate, mean


def abstention(shared: Sequence[Mapping[str, Any]], coverage: float, seed: int, retrieves: bool) -> dict[str, Any]:
    """What `results.json` says of withheld answers.

    Args:
        shared: each hospital's `abstention.json`.
        coverage: as asked.
        seed: of the intervals, 95 % bootstrap over images.
        retrieves: whether cases are shown with questions; those held out were then shown in training.
    """
    hospitals = {each["hospital"]: np.array(each["images"], float).reshape(-1, 8) for each in shared}
    return {
        "coverage_asked": coverage,
        "held_out_cases": {each["hospital"]: each["held_out_cases"] for each in shared},
        "held_out_images": {each["hospital"]: each["held_out_images"] for each in shared},
        "held_out_shown_in_training": retrieves,
        **_figures(np.concatenate(list(hospitals.values())), seed),
        "hospitals": {hospital: _figures(sums, seed) for hospital, sums in hospitals.items()},
    }


def _figures(sums: np.ndarray, seed: int) -> dict[str, Any]:
    """Of sums over images, `(C, 8)`: coverage and abstention rate, and the accuracy of each kind of question.

    `image_coverage`, the mean over images of the share of their questions that is answered, is what is promised.
    """
    at = {(kind, column): n for n, (kind, column) in enumerate((kind, column) for kind in KINDS for column in COLUMNS)}
    everything = [at[kind, "n"] for kind in KINDS]
    covered = _told(sums, _share([at[kind, "answered"] for kind in KINDS], everything), everything, seed)
    asked, given_of = sums[:, everything].sum(axis=1), sums[:, [at[kind, "answered"] for kind in KINDS]].sum(axis=1)
    shares = np.column_stack([given_of / np.maximum(asked, 1), asked > 0])
    by_image = _told(shares, mean, [1], seed)
    kinds = {}
    for kind in KINDS:
        n, answered = (int(sums[:, at[kind, column]].sum()) for column in ("n", "answered"))
        given, all_of_it = [at[kind, "answered"]], [at[kind, "n"]]
        kinds[kind] = {
            "n": n,
            "answered": answered,
            "accuracy": _told(sums, _share([at[kind, "right"]], given), given, seed),
            "accuracy_if_all_were_answered": _told(
                sums, _share([at[kind, "right_if_all_were_answered"]], all_of_it), all_of_it, seed
            ),
        }
    rate = None if covered is None else 1 - covered["value"]
    got = {"image_coverage": by_image, "coverage": covered, "abstention_rate": rate}
    return {"n": int(sums[:, everything].sum()), **got, **kinds}


def _share(part: list[int], whole: list[int]) -> Statistic:
    # A resample without any counts as 0: where answers are so few, the interval is wide anyway.
    return lambda sums: sums[:, part].sum(axis=1) / np.maximum(sums[:, whole].sum(axis=1), 1)


def _told(sums: np.ndarray, statistic: Statistic, whole: list[int], seed: int) -> dict[str, Any] | None:
    if not sums[:, whole].sum():
        return None
    found: Estimate = estimate(sums, statistic, seed)
    return {"value": found.value, "interval": found.interval}


def abstention_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The `abstention` of `results.json` as text: headings, then the hospitals together and one by one."""
    got = ("coverage asked", "got, of an image", "of all", "withheld")
    headings = ("", "n", *got, "closed, answered", "all", "open exact, answered", "all")
    rows = [("all hospitals", found), *found["hospitals"].items()]
    return [headings, *((name, *_cells(row, found["coverage_asked"])) for name, row in rows)]


def abstention_note(found: Mapping[str, Any]) -> str:
    """What the `abstention` of `results.json` promises, and what stands against it."""
    note = (
        "Where a new image is like the held-out ones, its questions are answered with at least the probability asked, "
        "on average over images."
    )
    if found.get("held_out_shown_in_training"):
        note += (
            " The held-out cases were not trained on, but shown as retrieved cases in training, their answers with "
            "them: the model may be surer of them than of new ones, and answer fewer of these than promised."
        )
    return note


def _cells(row: Mapping[str, Any], asked: float) -> tuple[str, ...]:
    rate = row["abstention_rate"]
    scores = [_cell(row[kind][name]) for kind in KINDS for name in ("accuracy", "accuracy_if_all_were_answered")]
    got = (_cell(row.get("image_coverage")), _cell(row["coverage"]))
    return (str(row["n"]), f"{asked:g}", *got, "-" if rate is None else f"{rate:.3f}", *scores)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
