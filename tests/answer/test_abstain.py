"""Abstention: the conformal guarantee by simulation and by its definition; figures against counting one by one."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answer.abstain import conformal_threshold, count_answers
from tasks.records import Prediction
from tasks.report.abstention import abstention, abstention_note, abstention_rows

COVERAGES = (0.05, 0.5, 0.8, 0.9, 0.95)


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("count", [3, 19, 60])
def test_new_cases_are_answered_as_often_as_asked(count: int, coverage: float) -> None:
    """Over draws of held-out images of one question and a new one: at least the coverage, at most 1 / (n + 1) more."""
    chooser = np.random.default_rng(count)
    draws = chooser.beta(4, 1, size=(4000, count + 1))
    given_ = [row[-1] >= conformal_threshold(row[:-1].tolist(), range(count), coverage) for row in draws]
    noise = 4 * (coverage * (1 - coverage) / len(draws)) ** 0.5
    assert coverage - noise <= np.mean(given_) <= coverage + 1 / (count + 1) + noise


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), max_size=40), st.integers(1, 100))
def test_it_is_the_conformal_quantile(confidences: list[float], percent: int) -> None:
    """The quantile of Angelopoulos & Bates: the smallest score that enough scores do not exceed."""
    threshold = conformal_threshold(confidences, range(len(confidences)), percent / 100)
    wanted = Fraction(percent, 100) * (len(confidences) + 1)
    fitting = [each for each in confidences if sum(other >= each for other in confidences) >= wanted]
    assert threshold == (max(fitting) if fitting else 0.0)


def test_all_are_answered_at_full_coverage_and_without_held_out_cases() -> None:
    assert conformal_threshold([0.2, 0.9], ["a", "b"], 1.0) == 0.0
    assert conformal_threshold([], [], 0.5) == 0.0
    with pytest.raises(ValueError):
        conformal_threshold([0.2, 0.9], ["a"], 0.5)


def drawn(images: int, chooser: np.random.Generator, alike: float) -> tuple[np.ndarray, list[int]]:
    """Confidences and images of questions, one to fifteen an image: `alike` of their variance is the image's."""
    questions = chooser.integers(1, 16, images)
    owner = np.repeat(np.arange(images), questions)
    mixed = alike**0.5 * chooser.normal(size=images)[owner] + (1 - alike) ** 0.5 * chooser.normal(size=len(owner))
    return 1 / (1 + np.exp(-mixed)), owner.tolist()


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.8])
@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_questions_of_new_images_are_answered_as_often_as_asked(coverage: float, alike: float) -> None:
    """Held-out images with many like questions, and a new one: over draws, the share of its questions."""
    chooser = np.random.default_rng(3)
    held, independent = [], []
    for _ in range(1500):
        confidences, images = drawn(8, chooser, alike)
        old = [place for place, image in enumerate(images) if image < 7]
        new = [place for place, image in enumerate(images) if image == 7]
        threshold = conformal_threshold(confidences[old].tolist(), [images[place] for place in old], coverage)
        held.append(np.mean(confidences[new] >= threshold))
        independent.append(np.mean(confidences[new] >= conformal_threshold(confidences[old].tolist(), old, coverage)))
    noise = 3 * np.std(held) / len(held) ** 0.5
    assert np.mean(held) >= coverage - noise
    assert np.mean(held) <= coverage + 1 / 8 + noise
    if alike == 1 and coverage > 0.5:  # questions taken for independent, as they stood here before
        assert np.mean(independent) < coverage - 0.02


def test_an_image_weighs_the_same_however_much_is_asked_of_it() -> None:
    sure, images = [0.9] * 8 + [0.5, 0.4, 0.2], ["a"] * 8 + ["b", "c", "c"]
    assert conformal_threshold(sure, images, 0.25) == 0.9  # of four images, the new one among them
    assert conformal_threshold(sure, images, 0.5) == 0.5
    assert conformal_threshold(sure, images, 0.6) == 0.4
    assert conformal_threshold(sure, images, 0.75) == 0.2
    assert conformal_threshold(sure, images, 0.76) == 0.0


def test_an_answer_as_sure_as_the_threshold_is_given() -> None:
    rows, images = predictions()
    threshold = sorted(row.confidence or 0 for row in rows)[20]
    counted = np.array(count_answers(rows, images, threshold))
    assert counted[:, [1, 5]].sum() == 40
    unsure = [replace(row, confidence=None) for row in rows]
    assert np.array(count_answers(unsure, images, 0.1))[:, [1, 5]].sum() == 0


def predictions() -> tuple[list[Prediction], list[str]]:
    chooser = np.random.default_rng(0)
    rows = []
    for number in range(60):
        kind: Any = "closed" if number % 3 else "open"
        right = bool(chooser.random() < 0.6)
        answer = ("yes" if right else "no") if kind == "closed" else ("left lung" if right else "liver")
        reference = "yes" if kind == "closed" else "left lung"
        row = Prediction("fed", f"c:{number}", "h", kind, "?", reference, answer, ())
        rows.append(replace(row, confidence=float(chooser.random())))
    return rows, [f"image-{number // 4}" for number in range(60)]


def test_figures_are_those_counted_one_by_one() -> None:
    rows, images = predictions()
    parts = {"a": (7, 3, slice(0, 40), 0.3), "b": (9, 4, slice(40, 60), 0.6), "empty": (0, 0, slice(0, 0), 0.0)}
    shared = [
        {
            "hospital": hospital,
            "held_out_cases": cases,
            "held_out_images": held_out_images,
            "images": count_answers(rows[part], images[part], threshold),
        }
        for hospital, (cases, held_out_images, part, threshold) in parts.items()
    ]
    found = abstention(shared, 0.7, seed=1, retrieves=True)
    answered = [row for row in rows[:40] if (row.confidence or 0) >= 0.3]
    answered += [row for row in rows[40:] if (row.confidence or 0) >= 0.6]
    assert found["coverage"]["value"] == pytest.approx(len(answered) / 60)
    shares = {image: [] for image in images}
    for row, image in zip(rows, images, strict=True):
        shares[image].append(row in answered)
    assert found["image_coverage"]["value"] == pytest.approx(np.mean([np.mean(each) for each in shares.values()]))
    assert found["held_out_images"] == {"a": 3, "b": 4, "empty": 0}
    assert "shown as retrieved cases in training" in abstention_note(found)
    assert "shown as" not in abstention_note(found | {"held_out_shown_in_training": False})
    assert found["abstention_rate"] == pytest.approx(1 - len(answered) / 60)
    for kind in ("closed", "open"):
        of_kind = [row for row in answered if row.kind == kind]
        right = sum(row.prediction == row.reference for row in of_kind)
        assert (found[kind]["n"], found[kind]["answered"]) == (
            sum(row.kind == kind for row in rows),
            len(of_kind),
        )
        assert found[kind]["accuracy"]["value"] == pytest.approx(right / len(of_kind))
        everything = [row.prediction == row.reference for row in rows if row.kind == kind]
        assert found[kind]["accuracy_if_all_were_answered"]["value"] == pytest.approx(np.mean(everything))
        low, high = found[kind]["accuracy"]["interval"]
        assert low <= found[kind]["accuracy"]["value"] <= high
    assert found["hospitals"]["empty"]["coverage"] is None
    assert found["hospitals"]["a"]["n"] == 40
    headings, *table = abstention_rows(found)
    assert [row[0] for row in table] == ["all hospitals", "a", "b", "empty"]
    assert {len(row) for row in table} == {len(headings)}
    assert table[3][3:] == ("-",) * 7


def test_nothing_shared_about_an_image_names_it() -> None:
    rows, images = predictions()
    order = np.random.default_rng(1).permutation(60)
    mixed = count_answers([rows[n] for n in order], [images[n] for n in order], 0.3)
    assert mixed == count_answers(rows, images, 0.3)
