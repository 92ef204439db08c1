"""A run's scores in detail, against plain sums; and the parts of its page that show them."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import pytest

from tasks.records import Outcome
from tasks.report.intervals import FEWEST, details, group_rows, interval_rows
from tasks.report.page.plots import group_plot, reliability_plot
from tasks.report.page.render import detail_plots
from tasks.score.image_sums import ImageSums
from tasks.score.metrics import METRICS
from tasks.score.sharing import share

ZERO = dict.fromkeys((metric.field for metric in METRICS.values() if metric.score), 0.0)


def outcome(number: int, right: bool, modality: str, confidence: float | None, configuration: str = "fed") -> Outcome:
    """The outcome of one open question about an image of its own."""
    return Outcome(
        configuration=configuration,
        hospital="north",
        case=number,
        image=number,
        kind="open",
        choice=0,
        dataset="d",
        modality=modality,
        organ=None,
        topic=None,
        training_image=None,
        correct=float(right),
        gold=None,
        predicted=None,
        scores=ZERO | {"exact_match": float(right)},
        confidence=confidence,
    )


def shared(rows: list[Outcome], least: int = 1) -> tuple[dict[str, Any], Sequence[ImageSums]]:
    """What the hospital shares of them, as its files hold it."""
    document = share(rows, least)
    calibration = {name: [list(astuple(each)) for each in bins] for name, bins in document.calibration.items()}
    return {"hospital": rows[0].hospital, "tallies": document.tallies, "calibration": calibration}, document.sums


ROWS = [outcome(n, n % 4 != 0, "ct" if n < 30 else "mri", 0.75) for n in range(40)] + [
    outcome(n, False, "ct" if n < 30 else "mri", None, "majority") for n in range(40)
]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What the page is made of."""
    return {"configurations": {"fed": {}}, "baselines": {"majority": {}}, "reliance": {}} | details([shared(ROWS)], 0)


def test_scores_are_plain_means_within_their_intervals(results: dict[str, Any]) -> None:
    by_place = {(e["configuration"], e["measure"], e["group"], e["value"]): e for e in results["scores"]}
    everywhere = by_place["fed", "open_exact_match", "all", None]
    assert everywhere["score"] == 30 / 40
    assert everywhere["interval"][0] < 0.75 < everywhere["interval"][1]
    assert by_place["fed", "correct", "modality", "mri"]["score"] == sum(n % 4 != 0 for n in range(30, 40)) / 10
    assert by_place["majority", "correct", "all", None]["score"] == 0


def test_a_model_as_right_as_it_is_sure_is_calibrated_and_what_is_no_model_has_none(results: dict[str, Any]) -> None:
    assert set(results["calibration"]) == {"fed"}
    assert results["calibration"]["fed"]["ece"] == pytest.approx(0)
    surer = details([shared([replace(row, confidence=0.95) for row in ROWS[:40]])], 0)
    assert surer["calibration"]["fed"]["ece"] == pytest.approx(0.2)


def test_tables_put_what_was_trained_first_and_leave_out_what_was_not_asked(results: dict[str, Any]) -> None:
    headings, *rows = interval_rows(results)
    assert headings == ("", "open exact match", "BLEU", "ROUGE-L")
    assert [row[0] for row in rows] == ["fed", "majority"]
    assert rows[0][1].startswith("0.750 [0.")


def test_small_groups_are_not_shown() -> None:
    few = details([shared(ROWS[: 30 + FEWEST - 1])], 0)["scores"]
    names = [row[0] for row in group_rows(few, "fed")[1:]]
    assert "modality: ct" in names
    assert "modality: mri" not in names


def test_plots_tell_a_screen_reader_the_figures(results: dict[str, Any]) -> None:
    plot = group_plot(results["scores"], "fed", "modality")
    assert plot is not None
    assert "mri 0.800 of 10" in plot
    assert group_plot(results["scores"], "fed", "organ") is None
    assert "0.75 sure, 0.75 right, 40" in reliability_plot("fed", results["calibration"]["fed"])
    drawn = detail_plots(results, "fed")
    assert (len(drawn["groups"]), len(drawn["calibration"]), drawn["reliance"]) == (1, 1, [])
