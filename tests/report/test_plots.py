"""Plots: their bars and points are the figures of the document, and their words are read in the picture itself."""

import base64
import html
import io
import re
from typing import Any

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from tasks.records import EpochLoss, Saliency
from tasks.report.page.dashboard import inline_plots
from tasks.report.page.figures import REFERENCE, TRAINED, png, svg
from tasks.report.page.loss_plots import loss_plot, losses_png
from tasks.report.page.maps import OPACITY, maps_of, tinted
from tasks.report.page.plots import (
    group_plot,
    partition_plot,
    reliability_plot,
    reliance_plot,
    score_figure,
    score_plot,
    total,
)
from tasks.report.page.share_plots import PARTS, share_figure, share_plot


def words(picture: str) -> list[str]:
    """The texts that an SVG shows."""
    return [html.unescape(each) for each in re.findall(r"<text[^>]*>([^<]*)</text>", picture)]


def label_of(picture: str) -> str:
    """What a screen reader says of it."""
    (label,) = re.findall(r'aria-label="([^"]*)"', picture)
    return html.unescape(label)


def scores(closed: float | None, exact: float | None, *hospitals: tuple[float | None, float | None]) -> dict[str, Any]:
    def one(pair: tuple[float | None, float | None]) -> dict[str, Any]:
        return {"closed": {"accuracy": pair[0]}, "open": {"exact_match": pair[1]}}

    of = {f"hospital-{place}": one(pair) for place, pair in enumerate(hospitals, start=1)}
    return one((closed, exact)) | {"hospitals": of}


RESULTS: Any = {
    "configurations": {"fed_rag": scores(0.75, 0.5, (0.5, None), (1.0, 0.25))},
    "baselines": {"copy_nearest": scores(0.25, None, (None, None))},
    "saliency": {},
}


def test_a_bar_is_a_score_and_a_dot_a_hospital() -> None:
    left, right = score_figure(RESULTS).axes
    assert [axes.get_title() for axes in (left, right)] == [
        "Closed questions, accuracy",
        "Open questions, exact match",
    ]
    assert [bar.get_width() for bar in left.patches] == [0.75, 0.25]
    assert [bar.get_width() for bar in right.patches] == [0.5, 0]
    assert [bar.get_y() + bar.get_height() / 2 for bar in left.patches] == [0, 1]
    assert [line.get_xdata().tolist() for line in left.lines] == [[0.5, 1.0], []]
    assert [line.get_ydata().tolist() for line in right.lines] == [[0], []]
    assert [text.get_text() for text in left.texts] == []
    assert [(text.get_text(), text.get_position()[1]) for text in right.texts] == [("not asked", 1)]
    assert [label.get_text() for label in left.get_yticklabels()] == ["fed rag", "copy nearest"]
    for axes in (left, right):
        assert axes.get_xlim() == (0, 1)
        assert axes.get_ylim() == (1.5, -0.5)  # the first on top, all to be seen
    colours = [bar.get_facecolor() for bar in left.patches]
    assert colours[0] != colours[1]
    assert label_of(score_plot(RESULTS)) == (
        "Scores from 0 to 1: fed rag closed 0.750, open 0.500; copy nearest closed 0.250, open none"
    )


def test_losses_are_told_by_round() -> None:
    rounds = [{"round": n, "train_loss": 4 / n, "eval_loss": 5 / n} for n in (1, 2, 4)]
    picture = loss_plot(rounds)
    assert label_of(picture) == "Training loss by round, from 4.000 to 1.000; held-out loss from 5.000 to 1.250"
    assert {"round", "loss per answer token", "training", "held out"} <= set(words(picture))
    assert words(picture)[:3] == ["1", "2", "4"]  # rounds that there were
    bare = loss_plot([each | {"eval_loss": None} for each in rounds])
    assert label_of(bare) == "Training loss by round, from 4.000 to 1.000"
    assert "held out" not in words(bare)
    assert "stroke: #0b6e8f" in bare and "#d1495b" in picture and "#d1495b" not in bare


def epoch(stage: str, number: int, held_out: float | None, kept: bool = False) -> EpochLoss:
    return EpochLoss(stage, number, 4 / number, held_out, kept)


def test_the_losses_of_each_stage_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *given: Any, **named: Any) -> None:
        drawn.append(self)
        save(self, *given, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    rows = [
        epoch("projector", 1, None),
        epoch("projector", 2, None, kept=True),
        epoch("federation", 1, 6.0, kept=True),
        epoch("federation", 2, 7.0),
    ]
    data = losses_png(rows)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG" and picture.width > 600 > picture.height > 250
    left, right = drawn[0].axes
    assert (left.get_title(), right.get_title()) == ("projector", "federation")
    assert (left.get_xlabel(), right.get_xlabel()) == ("epoch", "round")
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss per answer token", "")
    points = [
        [(line.get_label(), *zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines]
        for axes in (left, right)
    ]
    assert points == [
        [("training", (1, 4), (2, 2)), ("kept", (2, 2))],
        [("training", (1, 4), (2, 2)), ("held out", (1, 6), (2, 7)), ("kept", (1, 6))],
    ]
    assert left.get_ylim() == pytest.approx((0, 4.4)) and right.get_ylim() == pytest.approx((0, 7.7))
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["training", "held out", "kept"]
    assert left.get_legend() is None
    assert losses_png(rows) == data
    with PIL.Image.open(io.BytesIO(losses_png(rows[:2]))) as picture:
        assert 350 < picture.width < 500


SHARES: Any = {
    "n": 7,
    "methods": {
        "relevance": {"query_image": 0.5, "retrieved_images": 0.05, "question": 0.45},
        "occlusion": {"query_image": 0.06, "retrieved_images": 0.94, "question": 0.0},
    },
}


def test_the_shares_of_a_bar_lie_end_to_end_and_large_ones_are_named() -> None:
    (axes,) = share_figure(SHARES).axes
    bars = [(bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in axes.patches]
    expected = [(0, 0.5, 0), (0.5, 0.05, 0), (0.55, 0.45, 0), (0, 0.06, 1), (0.06, 0.94, 1), (1, 0, 1)]
    np.testing.assert_allclose(bars, expected, atol=1e-9)
    assert [(text.get_text(), *text.get_position()) for text in axes.texts] == [
        ("50%", 0.25, 0),
        ("45%", pytest.approx(0.775), 0),
        ("6%", 0.03, 1),
        ("94%", pytest.approx(0.53), 1),
    ]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "question's image",
        "retrieved images",
        "question",
    ]
    assert axes.get_title() == "Where answers come from (7 explained)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["relevance", "occlusion"]
    assert axes.get_xlim() == (0, 1) and axes.get_ylim() == (1.5, -0.5)
    assert len({colour for _, colour in PARTS.values()}) == len(PARTS)
    assert label_of(share_plot("fed", SHARES)) == (
        "Where answers of fed come from: relevance question's image 0.500, retrieved images 0.050, question 0.450; "
        "occlusion question's image 0.060, retrieved images 0.940, question 0.000"
    )


def test_what_a_model_relies_on_is_described_by_perturbation() -> None:
    reliance: Any = {"alterations": {"as_is": {"score": 0.75}, "image_blank": {"score": 0.5}}}
    picture = reliance_plot("fed", reliance)
    assert label_of(picture) == "What fed relies on: as is 0.750; image blank 0.500"
    assert {"as is", "image blank", "Right answers of all questions"} <= set(words(picture))
    assert picture.count(f"fill: {TRAINED}") == 1 and picture.count(f"fill: {REFERENCE}") == 1


def test_groups_are_told_with_how_many_they_hold() -> None:
    def row(value: str, score: float, group: str = "modality", measure: str = "correct") -> Any:
        about = {"configuration": "fed", "group": group, "measure": measure, "n": 4, "interval": None}
        return about | {"value": value, "score": score}

    rows = [row("ct", 0.25), row("mri", 0.5) | {"interval": [0.25, 0.75]}, row("x", 1.0, measure="other")]
    picture = group_plot(rows, "fed", "modality")
    assert picture and label_of(picture) == "Right answers of fed by modality: ct 0.250 of 4; mri 0.500 of 4"
    assert {"ct (4)", "mri (4)", "Right answers by modality"} <= set(words(picture))
    assert group_plot(rows[:1], "fed", "modality") is None
    assert group_plot(rows, "other", "modality") is None and group_plot(rows, "fed", "organ") is None


def test_reliability_is_told_of_the_bins_that_hold_answers() -> None:
    bins = [{"n": 4, "confidence": 1.0, "correct": 2}, {"n": 0, "confidence": 0, "correct": 0}]
    calibration: Any = {"n": 6, "ece": 0.125, "bins": [*bins, {"n": 2, "confidence": 1.5, "correct": 1}]}
    picture = reliability_plot("fed", calibration)
    assert label_of(picture) == (
        "Reliability of fed, expected calibration error 0.125: 0.25 sure, 0.50 right, 4; 0.75 sure, 0.50 right, 2"
    )
    assert {"mean confidence", "right answers"} <= set(words(picture))


def test_withheld_counts_are_written_and_never_added() -> None:
    assert (total(1, 2, 3), total(1, "< 5", 3), total()) == (6, "< 5", 0)
    rows = [
        {"hospital": "north", "images": 9, "test_open": 1, "train_closed": 40},
        {"hospital": "south", "images": 8, "test_open": "< 5", "train_closed": 7},
    ]
    picture = partition_plot(rows)
    assert label_of(picture) == "Cases of each hospital: north 41; south < 5"
    texts = words(picture)
    assert {"test open", "train closed", "north", "south", "1", "40", "7", "< 5"} <= set(texts)
    assert "9" not in texts and "images" not in texts
    whites = re.findall(r'<text style="[^"]*fill: #ffffff[^"]*"[^>]*>([^<]*)<', picture)
    assert whites == ["40"]  # on the dark ground of the largest count alone
    assert "< 5" in words(partition_plot([rows[1] | {"train_closed": "< 5"}]))


def size_of(picture: str) -> tuple[float, float]:
    """Width and height in points, of which an inch has 72."""
    (box,) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture)
    return float(box[0]), float(box[1])


def test_of_very_many_hospitals_none_is_named_and_the_picture_stays_small() -> None:
    rows = [{"hospital": f"h-{n}", "images": 1, "train open": n, "test open": "< 5"} for n in range(1000)]
    picture = partition_plot(rows)
    shown = words(picture)
    assert "1,000 hospitals, most cases on top" in shown and {"train open", "test open"} <= set(shown)
    assert not [each for each in shown if each.startswith("h-")] and "< 5" not in shown
    assert max(size_of(picture)) <= 8 * 72
    assert "h-999" in label_of(picture), "who cannot see the picture is told of each"


def test_of_very_many_values_those_with_most_answers_are_drawn_in_their_order() -> None:
    def row(place: int) -> Any:
        about = {"configuration": "fed", "group": "organ", "measure": "correct", "interval": None, "score": 0.5}
        return about | {"value": f"organ {place}", "n": 1 if place % 2 else 9}

    picture = group_plot([row(place) for place in range(130)], "fed", "organ")
    assert picture
    named = [each for each in words(picture) if each.startswith("organ ")]
    assert named == [f"organ {place} (9)" for place in range(0, 128, 2)]
    assert "Right answers by organ, the 64 most frequent of 130" in words(picture)


def test_a_picture_is_whole_in_the_page_and_the_same_each_time() -> None:
    def drawn() -> str:
        figure = Figure()
        figure.subplots().plot([0, 1], label='a "b" & <c>')
        return svg(figure, 'says "so" & <so>')

    picture = drawn()
    assert picture.startswith('<svg role="img" aria-label="says &quot;so&quot; &amp; &lt;so&gt;"')
    assert picture.rstrip().endswith("</svg>") and "<metadata>" not in picture and "<?xml" not in picture
    assert drawn() == picture
    kept = re.findall(r' id="([^"]+)"', picture)
    assert kept and all(f"#{each}" in picture for each in kept)


def test_the_dashboard_has_each_picture_in_its_text() -> None:
    text = inline_plots(RESULTS | {"saliency": {"fed": SHARES}}, b"the losses")
    found = re.findall(r"!\[([^\]]*)\]\(data:image/png;base64,([^)]*)\)", text)
    assert [title for title, _ in found] == [
        "Scores of all test cases; a dot is one hospital",
        "Losses",
        "Where answers of fed come from",
    ]
    assert text == "\n\n".join(f"![{title}](data:image/png;base64,{data})" for title, data in found)
    decoded = [base64.b64decode(data) for _, data in found]
    assert decoded[1] == b"the losses"
    assert decoded[0] == png(score_figure(RESULTS)) and decoded[2] == png(share_figure(SHARES))
    assert all(PIL.Image.open(io.BytesIO(decoded[place])).format == "PNG" for place in (0, 2))


def test_maps_of_a_method_share_one_scale_and_lie_where_the_model_looked() -> None:
    def row(method: str, rank: int | None, weights: tuple[float, ...]) -> Saliency:
        return Saliency("c", method, None, None, None, "image", rank, 1, 2, weights, (3, 5, 13, 25))

    rows = [row("relevance", None, (0.25, 0.5)), row("relevance", 0, (1.0, -1.0)), row("occlusion", None, (-2.0, 0.0))]
    found = maps_of(rows)
    assert [(each.method, each.rank) for each in found] == [("relevance", None), ("relevance", 0), ("occlusion", None)]
    assert {(each.left, each.top, each.width, each.height) for each in found} == {(3, 5, 10, 20)}
    opacity = []
    for each in found:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(each.data.removeprefix("data:image/png;base64,"))))
        assert (picture.mode, picture.size) == ("RGBA", (2, 1))
        opacity.append((np.asarray(picture)[0, :, 3] / 255).tolist())
    np.testing.assert_allclose(opacity, OPACITY * np.array([[0.25, 0.5], [1, 0], [0, 0]]), atol=1 / 255)
    bright = tinted(row("relevance", None, (0.0, 1.0)), 1.0)[0, :, :3].sum(-1)
    assert bright[1] > 2.5 > 0.1 > bright[0]
