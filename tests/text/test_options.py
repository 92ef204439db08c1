"""How options are put to a model, and which of them a reply names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text.options import distinct, lettered, option_of, place_of, unlabelled


def test_the_options_stand_below_the_question() -> None:
    text = lettered("What imaging technique was employed?", ("PET scan", "CT scan", "Blood test", "Fundus imaging"))
    assert text.splitlines() == [
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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("A. CT", "B. MRI"), ["CT", "MRI"]),
        (("(a) CT", "b) MRI", "", "D: PET"), ["CT", "MRI", "", "PET"]),
        (("Ａ．CT", "Ｂ、MRI"), ["CT", "MRI"]),
        (("C. albicans", "S. aureus"), ["C. albicans", "S. aureus"]),
        (("A. fumigatus", "E. coli", "C. albicans"), ["A. fumigatus", "E. coli", "C. albicans"]),
        (("B. CT", "A. MRI"), ["B. CT", "A. MRI"]),
        (("A. fumigatus",), ["A. fumigatus"]),
        (("A.", "B."), ["A.", "B."]),
    ],
)
def test_a_label_is_an_options_own_letter_in_its_place_where_all_have_one(
    options: tuple[str, ...], expected: list[str]
) -> None:
    assert unlabelled(options) == expected


def test_options_that_begin_like_a_label_are_shown_whole() -> None:
    names = ("S. aureus", "C. albicans", "E. coli")
    assert lettered("Which?", names).splitlines()[1:4] == ["A. S. aureus", "B. C. albicans", "C. E. coli"]
    assert [option_of(name, names) for name in names] == [0, 1, 2]


def test_options_that_differ_by_a_sign_are_two() -> None:
    for pair in (
        ("HER2+", "HER2-"),
        ("-5", "5"),
        ("≤5", "≥5"),
        ("T2", "T2*"),
        ("1,5", "15"),
        ("hepatitis A", "hepatitis"),
    ):
        assert distinct(pair) == list(pair)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [("C", 2), ("(d)", 3), ("C. CT", 2), ("ct", 2), ("mri", 0), ("B", None), ("E", None), ("D. CT", None), ("", None)],
)
def test_a_reference_letter_counts_the_options_as_published(reference: str, expected: int | None) -> None:
    assert place_of(reference, ("MRI", "", "CT", "PET")) == expected


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
