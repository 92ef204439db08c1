"""How options are put to a model, and which of them a reply names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.options import distinct, lettered, option_of


def test_the_options_stand_below_the_question() -> None:
    shown = lettered("What imaging technique was employed?", ("PET scan", "CT scan", "Blood test", "Fundus imaging"))
    assert shown.splitlines() == [
        "What imaging technique was employed?",
        "A. PET scan",
        "B. CT scan",
        "C. Blood test",
        "D. Fundus imaging",
        "Answer with one of these.",
    ]


def test_options_that_say_the_same_are_offered_once() -> None:
    assert distinct(("Chest region.", "Leg", "CHEST REGION", " ")) == ["Chest region", "Leg"]
    assert "B. Leg" in lettered("What?", ("Chest region.", "CHEST REGION", "Leg"))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("B", 1),
        ("b.", 1),
        ("(B)", 1),
        ("B. MRI", 1),
        ("B. MRI of the knee", 1),
        ("B: it is bright", 1),
        ("Option A", 0),
        ("Answer: A", 0),
        ("mri.", 1),
        ("This is an MRI.", 1),
        ("A PET/CT scan", 2),
        ("A CT scan", 0),
        ("B. CT", None),
        ("A. CT or MRI", None),
        ("F", None),
        ("", None),
        ("CT or MRI", None),
        ("contact", None),
        ("Both", None),
    ],
)
def test_which_option_a_reply_names(reply: str, expected: int | None) -> None:
    assert option_of(reply, ("CT", "MRI", "PET/CT")) == expected


@given(st.lists(st.from_regex(r"\A[u-z][u-z .(-]{0,5}\Z"), min_size=2, max_size=5))
def test_letter_and_text_name_the_same_option(options: list[str]) -> None:
    kept = distinct(options)
    for number, option in enumerate(kept):
        assert option_of(option, kept) == number
        assert option_of(f"{string.ascii_uppercase[number]}. {option}", kept) == number


@given(st.text(max_size=30), st.lists(st.text(max_size=10), max_size=4))
def test_any_reply_can_be_read(reply: str, options: list[str]) -> None:
    named = option_of(reply, distinct(options))
    assert named is None or 0 <= named < len(distinct(options))
