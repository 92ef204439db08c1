"""What a run says of its data in a sentence, and what its hospitals withhold: each by hand."""

from typing import Any

import pytest

from tasks.records.shared_documents import SharedDocuments
from tasks.report.data import audited_tests, left_out, left_out_sentence, split_sentence
from tasks.report.held_back import held_back, held_back_rows, held_back_sentence
from tasks.report.saliency import share_rows, share_table


def split(**given: Any) -> dict[str, Any]:
    return {"disjoint": "none", "test": 6} | given


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        ([split(disjoint="image")], "no test image is a training image"),
        ([split(disjoint="near_duplicate")], "no test image is a training image or a copy of one"),
        (
            [split(disjoint="patient")],
            "no test image is a training image, a copy of one, or of a patient in training",
        ),
        (
            [split()],
            "as the data gives it; the audit found nothing of a test image or its patient in training",
        ),
        (
            [split(published_split_shares={"same_image": 0, "same_patient": None})],
            "as the data gives it; the audit found nothing of a test image in training; patients are not stated",
        ),
        (
            [split(published_split_shares={"same_image": 3, "same_patient": 0, "flipped_image": 1})],
            "as the data gives it; of 6 test cases the audit found these to share: "
            "an image of training 3, a flipped copy of one 1",
        ),
        (
            [split(published_split_shares={"near_duplicate_image": 2, "same_patient": None}, audited_test_cases=9)],
            "as the data gives it; of 9 test cases the audit found these to share: "
            "a near-copy of one 2; patients are not stated",
        ),
        (
            [split(published_split_shares={"same_patient": "< 5"}, origins=["made"])],
            "made from the data by whole images and patients; of 6 test cases the audit found these to share: "
            "a patient of training < 5",
        ),
        (  # seeds that draw their images: what each found is added up
            [
                split(origins=["drawn", "given"], published_split_shares={"same_image": 1}),
                split(origins=["given"], published_split_shares={"same_image": 2}, test=1),
            ],
            "drawn with the images or as the data gives it; of 7 test cases the audit found these to share: "
            "an image of training 3",
        ),
        (
            [split(published_split_shares={"same_image": 1}), split(published_split_shares={"same_image": "< 5"})],
            "as the data gives it; of 12 test cases the audit found these to share: an image of training < 5",
        ),
    ],
)
def test_of_which_split_scores_are(splits: list[dict[str, Any]], sentence: str) -> None:
    assert split_sentence(splits) == sentence


def test_test_cases_are_counted_before_any_was_moved() -> None:
    assert audited_tests({"audited_test_cases": 8, "test": 5}) == 8
    assert audited_tests({"test": 5}) == 5
    assert audited_tests({}) == 0


def test_rows_left_out_are_counted_by_their_reason() -> None:
    reasons = ["expected an image, found none", "expected an answer, found ''", "expected an image, found 'x, y'"]
    assert left_out({"frame rows left out": 4, "images read": 9}, reasons) == {
        "frame rows": 4,
        "unusable rows (expected an image)": 2,
        "unusable rows (expected an answer)": 1,
    }
    assert left_out({}, []) == {}


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({}, "no row was unusable"),  # of an earlier version
        ({"rejected": 0}, "no row was unusable"),
        ({"rejected": 2}, "2 rows could not be used"),
        ({"rejected": 1}, "1 row could not be used"),
        ({"left_out": {}}, "no row was left out"),
        (
            {"left_out": {"frame rows": 3, "slake: Chinese rows": 1}, "cases": 10, "captions": 6},
            "left out 4 of 20 rows: 3 frame rows, 1 Chinese row of slake",
        ),
        (
            {"left_out": {"unusable rows (expected one of: a, b)": 2}, "cases": 1, "captions": 0},
            "left out 2 of 3 rows: 2 unusable rows (expected one of: a, b)",
        ),
    ],
)
def test_which_rows_are_left_out(dataset: dict[str, Any], sentence: str) -> None:
    assert left_out_sentence(dataset) == sentence


NOTHING: dict[str, Any] = {"questions": [], "labels": False, "groups": {}, "by_kind": {}}


def withheld(**given: Any) -> dict[str, Any]:
    return NOTHING | given


def shared(**given: Any) -> SharedDocuments:
    return SharedDocuments(**{name: [] for name in SharedDocuments.__dataclass_fields__} | given)


def test_what_each_hospital_withholds_is_named_and_never_counted() -> None:
    scores: list[Any] = [
        {"hospital": "north", "withheld": withheld(questions=["open", "choice"], labels=True)},
        {"hospital": "south", "withheld": withheld(groups={"organ": ["liver", "lung"]}, by_kind={"modality": ["ct"]})},
        {"hospital": "east", "withheld": withheld()},
    ]
    reliance: list[Any] = [
        {"hospital": "north", "withheld": withheld(questions=["closed"])},
        {"hospital": "west", "withheld": withheld(questions=["choice"])},
    ]
    modes: Any = {
        "copies": {"n": None, "shown": None},
        "border": {"n": 7, "shown": 5},
        "diffuse": {"n": 7, "shown": None},
    }
    failures: list[Any] = [
        {"hospital": "east", "n": 9, "modes": modes},
        {"hospital": "south", "n": None, "modes": {"copies": {"n": None, "shown": None}}},
    ]
    shares: list[Any] = [{"hospital": "south", "n": None, "methods": {}}, {"hospital": "north", "n": 6, "methods": {}}]
    abstention: list[Any] = [{"hospital": "north", "withheld": ["open"]}, {"hospital": "east", "withheld": []}]
    found = held_back(
        5, shared(scores=scores, reliance=reliance, failures=failures, shares=shares, abstention=abstention)
    )
    assert found == {
        "min_cell": 5,
        "hospitals": {
            "north": [
                "open questions",
                "which are multiple choice",
                "labels of closed questions",
                "closed questions with altered prompts",
                "open questions answered and withheld",
            ],
            "south": [
                "organ: liver",
                "organ: lung",
                "modality by kind: ct",
                "failure modes",
                "where answers come from",
            ],
            "west": ["which are multiple choice with altered prompts"],
            "east": ["failure mode: copies", "failure mode: diffuse"],
        },
    }
    headings, *rows = held_back_rows(found)
    assert headings == ("", "withheld")
    assert [row[0] for row in rows] == ["north", "south", "west", "east"]
    assert rows[-1] == ("east", "failure mode: copies; failure mode: diffuse")
    twice: Any = {"min_cell": 5, "hospitals": {"north": ["a", "b", "a"]}}
    assert held_back_rows(twice)[1:] == [("north", "a; b")]


def test_the_sentence_says_the_rule_and_whether_it_had_to_be_kept() -> None:
    rule = "Nothing is told of fewer than 5 cases of a hospital"
    assert held_back_sentence({"min_cell": 5, "hospitals": {}}) == f"{rule}; nothing had to be withheld."
    assert held_back_sentence({"min_cell": 5, "hospitals": {"north": ["a"]}}) == (
        f"{rule}: the following was withheld. A value of a group is still in the scores of all questions."
    )


def test_one_answer_is_one_answer() -> None:
    for count, heading in ((1, "of 1 answer"), (3, "of 3 answers")):
        means: Any = [
            {"hospital": "north", "n": count, "methods": {"relevance": {"query_image": 0.25, "format": 0.75}}}
        ]
        rows = share_rows(share_table("fed", means)["fed"])
        assert rows == [(heading, "query image", "format"), ("relevance", "0.250", "0.750")]
