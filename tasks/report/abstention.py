"""The results of withheld answers (abstention), at the coverage that the user sets."""

from collections.abc import Sequence

import numpy as np

from tasks.records.abstention import COLUMNS, KINDS
from tasks.records.run_document import Abstention, AbstentionFigures, AbstentionOfKind, Figure
from tasks.records.shared_documents import AbstentionDocument
from tasks.score.statistics import Estimate, Statistic, estimate, mean


def abstention(shared: Sequence[AbstentionDocument], coverage: float, seed: int, retrieves: bool) -> Abstention | None:
    """The `abstention` of `results.json`; None where no hospital withholds answers.

    Args:
        shared: each hospital's `abstention.json`.
        coverage: as set by the user.
        seed: of the 95 % bootstrap intervals over images.
        retrieves: whether prompts contain retrieved cases; the held-out cases were then contexts in training.
    """
    if not shared:
        return None
    hospitals = {each["hospital"]: np.array(each["images"], float).reshape(-1, 8) for each in shared}
    return {
        "coverage_asked": coverage,
        "held_out_cases": {each["hospital"]: each["held_out_cases"] for each in shared},
        "held_out_images": {each["hospital"]: each["held_out_images"] for each in shared},
        "held_out_shown_in_training": retrieves,
        **_figures(np.concatenate(list(hospitals.values())), seed),
        "hospitals": {hospital: _figures(sums, seed) for hospital, sums in hospitals.items()},
    }


def _figures(sums: np.ndarray, seed: int) -> AbstentionFigures:
    """Coverage, abstention rate, and the accuracy of each kind of question, from sums over images `(C, 8)`.

    `image_coverage` is the mean over images of the share of their questions that is answered: the guarantee is about
    it.
    """
    at = {(kind, column): n for n, (kind, column) in enumerate((kind, column) for kind in KINDS for column in COLUMNS)}
    everything = [at[kind, "n"] for kind in KINDS]
    covered = _with_interval(sums, _share([at[kind, "answered"] for kind in KINDS], everything), everything, seed)
    questions, given_of = sums[:, everything].sum(axis=1), sums[:, [at[kind, "answered"] for kind in KINDS]].sum(axis=1)
    shares = np.column_stack([given_of / np.maximum(questions, 1), questions > 0])
    by_image = _with_interval(shares, mean, [1], seed)
    return {
        "n": int(sums[:, everything].sum()),
        "image_coverage": by_image,
        "coverage": covered,
        "abstention_rate": None if covered is None else 1 - covered["value"],
        "closed": _of_kind(sums[:, :4], seed),
        "open": _of_kind(sums[:, 4:], seed),
    }


def _of_kind(sums: np.ndarray, seed: int) -> AbstentionOfKind:
    """Numbers of questions of one kind, answered and right, from sums over images `(C, 4)` as in COLUMNS."""
    n, answered, right, right_of_all = range(len(COLUMNS))
    return {
        "n": int(sums[:, n].sum()),
        "answered": int(sums[:, answered].sum()),
        "accuracy": _with_interval(sums, _share([right], [answered]), [answered], seed),
        "accuracy_if_all_were_answered": _with_interval(sums, _share([right_of_all], [n]), [n], seed),
    }


def _share(part: list[int], whole: list[int]) -> Statistic:
    # A resample without any answer counts as 0: with so few answers the interval is wide anyway.
    return lambda sums: sums[:, part].sum(axis=1) / np.maximum(sums[:, whole].sum(axis=1), 1)


def _with_interval(sums: np.ndarray, statistic: Statistic, whole: list[int], seed: int) -> Figure | None:
    if not sums[:, whole].sum():
        return None
    found: Estimate = estimate(sums, statistic, seed)
    return {"value": found.value, "interval": found.interval}


def abstention_rows(found: Abstention) -> list[tuple[str, ...]]:
    """The `abstention` of `results.json` as text: headings, a row for all hospitals, then a row for each."""
    got = ("coverage asked", "got, of an image", "of all", "withheld")
    headings = ("", "n", *got, "closed, answered", "all", "open exact, answered", "all")
    rows = [("all hospitals", found), *found["hospitals"].items()]
    return [headings, *((name, *_cells(row, found["coverage_asked"])) for name, row in rows)]


def abstention_note(found: Abstention) -> str:
    """The guarantee behind the `abstention` of `results.json`, and its limits."""
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


def _cells(row: AbstentionFigures, coverage: float) -> tuple[str, ...]:
    rate = row["abstention_rate"]
    kinds = (row["closed"], row["open"])
    scores = [_cell(figure) for of in kinds for figure in (of["accuracy"], of["accuracy_if_all_were_answered"])]
    got = (_cell(row.get("image_coverage")), _cell(row["coverage"]))
    return (str(row["n"]), f"{coverage:g}", *got, "-" if rate is None else f"{rate:.3f}", *scores)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
