"""The baselines on cases small enough to answer by hand, on awkward ones, and on VQA-RAD's own answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.answer.step import answer_baselines
from tasks.engine.vision import FEATURES, Features
from tasks.records import Case, Kind, Neighbour, Prediction, read_table, write_table
from tasks.score import baselines as blind
from tasks.score.baselines import copy_nearest, image_and_question, majority, question_only
from tasks.score.score import score_row, scores, summarise
from tasks.store import writing

VQA_RAD = Path("../shared/datasets/vqa-rad-osf/VQA_RAD Dataset Public.json")

CASES = st.lists(
    st.tuples(st.text(max_size=6), st.text(max_size=3), st.sampled_from(["closed", "open"])), max_size=8
).map(lambda rows: [case(*row) for row in rows])


def case(question: str, answer: str, kind: Kind = "open", name: str = "c") -> Case:
    return Case(name, "image", question, answer, kind, "train", "toy", "en")


def test_majority_is_counted_a_kind() -> None:
    train = [
        case("", "Lung"),
        case("", "lung."),
        case("", "lung."),
        case("", "liver"),
        case("", "no", "closed"),
    ]
    assert majority(train, [case("", "?"), case("", "?", "closed"), case("", "?")]) == [
        "lung.",
        "no",
        "lung.",
    ]


def test_majority_ties_go_to_the_alphabet() -> None:
    train = [case("", "Spleen"), case("", "liver"), case("", "Liver"), case("", "spleen")]
    assert majority(train, [case("", "?")]) == majority(train[::-1], [case("", "?")]) == ["Liver"]


def test_majority_falls_back_to_the_other_kind() -> None:
    assert majority([case("", "lung")], [case("", "?", "closed")]) == ["lung"]
    assert majority([], [case("", "?")]) == [""]
    assert majority([case("", "lung")], []) == []


def test_question_only_learns_the_question() -> None:
    train = [case("which organ is shown", answer) for answer in ("Lung", "lung", "Lung")]
    train += [case("which modality is used", "MRI")] * 2
    train += [case("is there a mass", "yes", "closed"), case("is the heart enlarged", "no", "closed")] * 2
    test = [case("which modality", ""), case("which organ", ""), case("heart enlarged", "", "closed")]
    assert question_only(train, test, seed=0) == ["MRI", "Lung", "no"]


def test_question_only_reads_chinese_by_character() -> None:
    train = [case("图中有哪个器官？", "肺")] * 3 + [case("这是什么模态？", "CT")] * 2
    assert question_only(train, [case("什么模态", ""), case("哪个器官", "")], seed=0) == ["CT", "肺"]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ([], ""),
        ([case("any", "lung")] * 3, "lung"),
        ([case("", "lung"), case(" ", "lung"), case("", "liver")], "lung"),
        ([case("any", "yes", "closed"), case("any", "no", "closed"), case("other", "yes", "closed")], "yes"),
    ],
    ids=["no training", "one answer", "blank questions", "no training case of the kind"],
)
def test_question_only_where_there_is_nothing_to_learn(train: list[Case], expected: str) -> None:
    assert question_only(train, [case("which organ", "?")], seed=0) == [expected]


@settings(deadline=None, max_examples=30)
@given(CASES, CASES)
def test_question_only_answers_every_case_from_the_training_answers(train: list[Case], test: list[Case]) -> None:
    answers = question_only(train, test, seed=1)
    assert len(answers) == len(test)
    assert set(answers) <= {each.answer for each in train} | {""}
    assert question_only(train, test, seed=1) == answers


def test_question_only_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells the most common answers apart, and learns from so many questions."""
    monkeypatch.setattr(blind, "ANSWERS", 3)
    monkeypatch.setattr(blind, "QUESTIONS", 12)
    train = [case(f"word{i} of word{i}", f"answer {i}") for i in range(8) for _ in range(9 - i)]
    assert set(question_only(train, train, seed=0)) == {"answer 0", "answer 1", "answer 2"}
    monkeypatch.setattr(blind, "QUESTIONS", 1)
    assert len(set(question_only(train, train, seed=0))) == 1


def test_image_and_question_needs_both() -> None:
    """Each image holds an organ and is taken by a modality, so neither image nor question tells the answer alone."""
    rng = np.random.default_rng(0)
    images, cases = {}, []
    for number in range(60):
        organ, modality = rng.integers(2), rng.integers(2)
        images[f"i{number}"] = rng.normal(0, 0.3, 8) + np.eye(8)[organ] * 3 + np.eye(8)[2 + modality] * 3
        for question, answer in (
            ("which organ", ("lung", "liver")[organ]),
            ("which modality", ("CT", "MRI")[modality]),
        ):
            cases.append(replace(case(question, answer, name=f"{question}{number}"), image_id=f"i{number}"))
    train, test = cases[:80], cases[80:]
    wanted = [each.answer for each in test]
    assert image_and_question(train, test, images, seed=0) == wanted
    assert image_and_question(train, test, {name: row * 1000 - 5 for name, row in images.items()}, seed=0) == wanted
    alone = question_only(train, test, seed=0)
    assert sum(said == answer for said, answer in zip(alone, wanted, strict=True)) < len(wanted) * 0.75
    alike = image_and_question(train, test, dict.fromkeys(images, np.ones(8)), seed=0)
    assert alike == alone


def test_copy_nearest_takes_rank_zero() -> None:
    train = [case("", "lung", name="t1"), case("", "liver", name="t2")]
    found = [Neighbour("q1", 1, "t1", 0.4), Neighbour("q1", 0, "t2", 0.9), Neighbour("q3", 1, "t1", 0.2)]
    test = [case("", "?", name=name) for name in ("q1", "q2", "q3")]
    assert copy_nearest(train, test, found) == ["liver", "", ""]


def test_copy_nearest_refuses_an_unknown_neighbour() -> None:
    with pytest.raises(KeyError, match="t9"):
        copy_nearest([], [case("", "?", name="q1")], [Neighbour("q1", 0, "t9", 1.0)])


def answered(folder: str, cases: list[Case], neighbours: list[Neighbour]) -> dict[str, dict[str, str]]:
    """What the stage writes: each baseline's answer by the case's id."""
    with writing("hospitals/north", "cases", folder) as folder_of_cases, folder_of_cases.open("cases.parquet") as sink:
        write_table(sink, Case, cases)
    with writing("hospitals/north", "library", folder) as library, library.open("neighbours.parquet") as sink:
        write_table(sink, Neighbour, neighbours)
    with writing("hospitals/north", "features", folder) as seen:
        seen.write(FEATURES, Features(torch.ones(1, 2), {"image": 0}, {"image": (1, 1, 1)}, 1).to_bytes())
    given = {"cases": folder_of_cases.ref, "features": seen.ref, "library": library.ref}
    made = answer_baselines.fn(hospital="north", **given, seed=0)
    answers: dict[str, dict[str, str]] = {}
    for row in read_table(made.folder / "predictions.parquet", Prediction):
        answers.setdefault(row.configuration, {})[row.case_id] = row.prediction
    return answers


def test_the_stage_learns_from_training_cases_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the test and validation cases' answers are, and however many: their questions alone are read."""
    monkeypatch.chdir(tmp_path)
    train = [case("which organ", "lung", name="t0"), case("which organ", "lung", name="t1")]
    train += [case("which modality", "MRI", name="t2")]
    found = []
    for number, answer in enumerate(("liver", "CT")):
        tested = [replace(case(f"which organ {n}", answer, name=f"q{n}"), split="test") for n in range(8)]
        others = [replace(case("which organ", answer, name=f"v{n}"), split="validation") for n in range(8)]
        neighbours = [Neighbour(each.id, rank, f"t{2 - rank}", 0.5) for each in tested for rank in range(2)]
        found.append(answered(str(number), [*tested, *train, *others], neighbours))
    names = [f"q{n}" for n in range(8)]
    expected = {"majority": "lung", "question_only": "lung", "image_and_question": "lung"} | {"copy_nearest": "MRI"}
    assert found == [{name: dict.fromkeys(names, said) for name, said in expected.items()}] * 2


@pytest.fixture(scope="module")
def published() -> list[Case]:
    if not VQA_RAD.exists():
        pytest.skip(f"{VQA_RAD} is not on this machine")
    rows = json.loads(VQA_RAD.read_text(encoding="utf-8"))
    kinds: dict[str, Kind] = {"CLOSED": "closed", "OPEN": "open"}
    return [
        case(row["question"], str(row["answer"]), kinds[row["answer_type"].strip()], str(index))
        for index, row in enumerate(rows)
    ]


def test_copied_golds_score_one(published: list[Case]) -> None:
    itself = [Neighbour(each.id, 0, each.id, 1.0) for each in published]
    answers = copy_nearest(published, published, itself)
    rows = [score_row(answer, each.answer, each.kind) for answer, each in zip(answers, published, strict=True)]
    result = scores(summarise(rows))
    assert {value for kind in ("closed", "open") for name, value in result[kind].items() if name != "n"} == {1.0}


def test_question_only_beats_majority_on_published_questions(published: list[Case]) -> None:
    train, test = published[::2], published[1::2]
    accuracy = []
    for answers in (majority(train, test), question_only(train, test, seed=0)):
        rows = [score_row(answer, each.answer, each.kind) for answer, each in zip(answers, test, strict=True)]
        result = scores(summarise(rows))
        accuracy.append((result["closed"]["accuracy"], result["open"]["exact_match"]))
    assert accuracy[0][0] < accuracy[1][0]
    assert accuracy[0][1] < accuracy[1][1]
