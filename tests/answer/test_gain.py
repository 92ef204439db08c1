"""Right answers by image and their gain, against counts by hand and NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.answer.gain import right_by_image
from tasks.answer.step import count_gain
from tasks.records import Case, Prediction, write_table
from tasks.report.personal import personal_gain, personal_rows, personal_sentence
from tasks.store import Ref, writing

GIVEN = {"c0": ("i0", "yes", "no"), "c1": ("i0", "no", "no"), "c2": ("i1", "yes", "yes"), "c3": ("i2", "no", "yes")}
"""By case: its image, the answer with the adapter for all, and with the personal one; `yes` is right."""


def answers() -> list[Prediction]:
    return [
        Prediction(name, case, "north", "closed", "Is it?", said, "yes", (), confidence=0.5)
        for place, name in enumerate(("fed", "fed+personal"))
        for case, (_, *both) in GIVEN.items()
        for said in both[place : place + 1]
    ] + [Prediction("base", "c0", "north", "closed", "Is it?", "yes", "yes", (), confidence=0.5)]


def test_right_answers_are_counted_by_image_and_named_by_nothing() -> None:
    images = {case: image for case, (image, *_) in GIVEN.items()}
    assert right_by_image(answers(), images, ["fed", "fed+personal"]) == [[1, 0, 1], [1, 1, 1], [2, 1, 0]]


def counted(cases: list[Case], rows: list[Prediction], least: int) -> Ref:
    """What the stage shares of a hospital's answers."""

    def stored(stage: str, kind: Any, of: list[Any]) -> Ref:
        with writing("hospitals/north", stage, "0") as folder, folder.open(f"{stage}.parquet") as sink:
            write_table(sink, kind, of)
        return folder.ref

    return count_gain.fn(
        hospital="north",
        configurations=["fed", "fed+personal"],
        cases=stored("cases", Case, cases),
        predictions=[stored("predictions", Prediction, rows)],
        min_cell=least,
    )


@pytest.mark.parametrize(("least", "withheld"), [(4, False), (5, True)])
def test_few_cases_are_withheld(least: int, withheld: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases = [Case(name, image, "Is it?", "yes", "closed", "test", "own", "en") for name, (image, *_) in GIVEN.items()]

    document = json.loads((counted(cases, answers(), least).folder / "gain.json").read_text())
    images = [] if withheld else [[1, 0, 1], [1, 1, 1], [2, 1, 0]]
    assert document == {"hospital": "north", "images": images, "withheld": withheld}


def test_a_kind_of_few_cases_does_not_follow_from_the_gain_and_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores leave such a kind out: counted here, its right answers would be the difference."""
    monkeypatch.chdir(tmp_path)
    kinds: list[Any] = ["open", *3 * ["closed"]]
    cases = [Case(f"c{n}", f"i{n}", "Is it?", "yes", kind, "test", "own", "en") for n, kind in enumerate(kinds)]
    rows = [
        Prediction(name, case.id, "north", case.kind, "Is it?", "yes", "yes", ())
        for name in ("fed", "fed+personal")
        for case in cases
    ]

    def images(least: int) -> Any:
        return json.loads((counted(cases, rows, least).folder / "gain.json").read_text())["images"]

    assert images(1) == [[1, 1, 1]] * 4
    assert images(2) == images(3) == [[1, 1, 1]] * 3
    assert images(4) == []


def test_gains_are_of_pairs_and_the_worst_is_named() -> None:
    rng = np.random.default_rng(0)
    right = {"north": rng.random((200, 2)) < (0.4, 0.6), "south": rng.random((100, 2)) < (0.7, 0.65)}
    shared: list[Any] = [
        {"hospital": name, "images": [[1, *map(float, row)] for row in rows], "withheld": False}
        for name, rows in right.items()
    ] + [{"hospital": "east", "images": [], "withheld": True}]
    found = personal_gain("fed+personal", shared, 0)
    assert found is not None
    for name, rows in (*right.items(), ("all", np.concatenate(list(right.values())))):
        each = found if name == "all" else found["hospitals"][name]
        gains = rows[:, 1].astype(float) - rows[:, 0]
        assert (each["n"], each["for_all"], each["personal"]) == (len(rows), *map(pytest.approx, rows.mean(axis=0)))
        assert each["gain"]["value"] == pytest.approx(gains.mean())
        error = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains))
        assert each["gain"]["interval"] == pytest.approx([gains.mean() - error, gains.mean() + error], abs=0.03)
    assert found["hospitals"]["east"] == {"n": 0, "for_all": None, "personal": None, "gain": None}
    assert found["worst"] == {"for_all": "north", "personal": "north"}
    assert "Worst off: north with the adapter for all, north with its own." in personal_sentence(found)
    assert personal_rows(found)[-1] == ("east", "0", "-", "-", "-")
    assert personal_rows(found)[2][:2] == ("north", "200")
    assert personal_gain("fed+personal", [], 0) is None
    nobody = personal_gain("fed+personal", shared[2:], 0)
    assert nobody is not None and nobody["worst"] == {"for_all": None, "personal": None}
    assert "Worst" not in personal_sentence(nobody)
