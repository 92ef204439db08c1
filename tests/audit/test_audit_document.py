"""The audit's document: what is counted, by which ids, and of how many."""

from dataclasses import replace
from typing import Any

import pytest

from tasks.audit import document
from tasks.audit.document import Likeness, audit, between, score_table, shared_table, table
from tasks.records import Caption, Case, ImagePair

PAIRS = [
    ImagePair("a", "b", "identical_pixels", 1.0),
    ImagePair("b", "near", "near_duplicate", 0.9),
    ImagePair("a", "mirrored", "flipped", 0.9),
    ImagePair("alone", "unknown", "near_duplicate", 0.9),
]


def case(name: str, image: str, split: str, question: str = "what?", answer: str = "a", **fields: Any) -> Case:
    known = {"kind": "open", "dataset": "d", "language": "en"} | fields
    return Case(name, image, question, answer, split=split, **known)  # type: ignore[arg-type]


def caption(image: str, split: str, **fields: Any) -> Caption:
    return Caption(image, "an image", split, **({"dataset": "d", "language": "en"} | fields))  # type: ignore[arg-type]


TRAIN = [
    case("d:1", "a", "train", "Where is the mass?", "left lung", group="p"),
    case("d:2", "other", "train", "What is it?"),
]
TEST = [
    case("d:10", "b", "test", "Where does the mass lie?", "Left lung"),
    case("d:11", "near", "test", "where is the mass", "left lung"),
    case("d:12", "mirrored", "test", "how large?", "5 cm"),
    case("d:13", "alone", "test", "what is it", "b", group="p"),
]


def test_each_leak_has_its_count_its_rate_and_its_cases() -> None:
    found = audit([*TRAIN, *TEST, case("d:20", "a", "validation")], [], PAIRS)
    assert found["cases"] == {"test": 4, "train": 2, "validation": 1}
    leaks = found["train_test"]
    assert (leaks["test_cases"], leaks["train_cases"]) == (4, 2)
    assert {name: each["test_cases"] for name, each in leaks.items() if isinstance(each, dict)} == {
        "same_image": ["d:10"],
        "near_duplicate_image": ["d:11"],
        "flipped_image": ["d:12"],
        "same_patient": ["d:13"],
        "same_question": ["d:11"],
        "restated_question": ["d:10"],
        "repeated_question": ["d:11", "d:13"],
    }
    for name, leak in leaks.items():
        if isinstance(leak, dict):
            assert leak["n"] == len(leak["test_cases"])
            assert leak["rate"] == leak["n"] / 4
            assert name in found["definitions"]
    assert leaks["restated_question"]["examples"] == [{"test": "d:10", "train": "d:1"}]
    assert table(found)[0] == {"leak": "same image", "test cases": 1, "rate": "0.250"}


def test_captions_alone_are_counted_by_their_images() -> None:
    captions = [caption("a", "train", group="p"), caption("near", "test"), caption("alone", "test", group="p")]
    leaks = audit([], captions, [*PAIRS[1:], ImagePair("a", "near", "near_duplicate", 0.9)])["train_test"]
    assert leaks["test_cases"] == 2
    assert leaks["near_duplicate_image"] == {"n": 1, "rate": 0.5, "test_cases": ["near"]}
    assert leaks["same_patient"]["test_cases"] == ["alone"]
    assert leaks["same_question"]["rate"] is None  # they ask none


@pytest.mark.parametrize("stated", [(), ("d:1",), ("d:13",)])
def test_patients_that_are_not_stated_are_not_counted_as_none(stated: tuple[str, ...]) -> None:
    cases = [replace(each, group="p" if each.id in stated else None) for each in (*TRAIN, *TEST)]
    found = audit(cases, [], PAIRS)
    leak = found["train_test"]["same_patient"]
    assert leak == {"n": None, "rate": None, "test_cases": [], "stated": int("d:13" in stated)}
    (row,) = (row for row in table(found) if row["leak"].startswith("same patient"))
    assert (row["test cases"], row["rate"]) == ("not stated", "-")


@pytest.mark.parametrize("group", ["p", "other"])
def test_of_patients_that_some_cases_state_it_is_told_how_many_do(group: str) -> None:
    cases = [*TRAIN, *(replace(each, group=group if each.group else None) for each in TEST)]
    leaks = audit(cases, [], PAIRS)
    (row,) = (row for row in table(leaks) if row["leak"].startswith("same patient"))
    assert row["leak"] == "same patient (stated for 1 of 4)"
    assert row["test cases"] == (1 if group == "p" else 0)


def test_sides_of_which_one_states_no_patient_share_an_unstated_number() -> None:
    records = [case("d:1", "a", "train", group="p"), caption("b", "train", dataset="e")]
    (row,) = audit(records[:1], records[1:], PAIRS)["between_datasets"]  # type: ignore[arg-type]
    assert row["same_patient"] is None
    (cells,) = shared_table([row])
    assert (
        cells["same_patient"] == "not stated" and "examples" not in cells and cells["same_image"] == row["same_image"]
    )


def test_captions_beside_cases_are_not_tested() -> None:
    leaks = audit([*TRAIN, *TEST], [caption("x", "test")], PAIRS)["train_test"]
    assert leaks["test_cases"] == len(TEST)


def test_datasets_that_share_images_are_paired() -> None:
    records = [case("d:1", "a", "train"), caption("b", "train", dataset="e"), caption("alone", "test", dataset="f")]
    rows = audit(records[:1], records[1:], PAIRS)["between_datasets"]  # type: ignore[arg-type]
    assert [(row["a"], row["b"], row["same_image"], row["examples"]) for row in rows] == [
        ("d", "e", 1, ["a"]),
        ("d", "f", 0, []),
        ("e", "f", 0, []),
    ]


def test_a_chain_of_copies_shows_one_thing() -> None:
    likeness = Likeness([*TRAIN, *TEST], PAIRS)
    assert likeness.same["a"] == likeness.same["b"] != likeness.same["near"]
    assert len({likeness.copy_class[image] for image in ("a", "b", "near", "mirrored")}) == 1
    assert likeness.copy_class["alone"] != likeness.copy_class["a"]


def test_without_a_test_case_nothing_is_a_share() -> None:
    found = audit(TRAIN, [], [])
    assert {each["rate"] for each in found["train_test"].values() if isinstance(each, dict)} == {None}
    assert table(found)[0]["rate"] == "-"
    assert score_table(found) == []


def test_of_many_hospitals_just_those_pairs_are_listed_that_share_something(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [case(f"d:{name}", name, "train") for name in ("a", "b", "near", "mirrored", "alone", "last")]
    records += [case("d:p", "p", "train", group="p"), case("d:q", "q", "train", group="p")]
    owner = {record.image_id: f"h-{record.image_id}" for record in records}
    likeness = Likeness(records, PAIRS)
    every = between(records, likeness, owner)
    assert len(every) == len(records) * (len(records) - 1) // 2
    monkeypatch.setattr(document, "ALL_PAIRS", len(records) - 1)
    counts = ("same_image", "near_duplicate_image", "flipped_image", "same_patient")
    sharing = [row for row in every if any(row[name] for name in counts)]
    assert between(records, likeness, owner) == sharing
    assert 0 < len(sharing) < len(every)
