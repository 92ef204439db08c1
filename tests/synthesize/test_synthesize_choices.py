"""Multiple choice as open questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.records import Case
from tasks.synthesize.choices import can_be_open, points_at_options, reword, reworded

EXAMPLE = Case(
    "omni:ACRIMA_0000",
    "Images/ACRIMA/Im553_g_ACRIMA.png",
    "What imaging technique was employed to obtain this picture?",
    "Fundus imaging",
    "closed",
    "train",
    "omnimedvqa",
    "en",
    options=("PET scan", "CT scan", "Blood test", "Fundus imaging"),
)


def case(question: str, answer: str = "CT", options: tuple[str, ...] = ("CT", "MRI")) -> Case:
    return Case("o:1", "i1", question, answer, "closed", "test", "o", "en", options=options)


def test_the_published_example() -> None:
    made = reword(EXAMPLE)
    assert (made.question, made.answer, made.kind, made.options) == (EXAMPLE.question, "Fundus imaging", "open", ())
    assert (made.id, made.image_id, made.split) == (EXAMPLE.id, EXAMPLE.image_id, EXAMPLE.split)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which of the following imaging techniques was used?", "Which imaging technique was used?"),
        ("Which of the following best describes the abnormality?", "What best describes the abnormality?"),
        ("Which one of the following is shown in the image?", "What is shown in the image?"),
        ("Which among these organs is affected?", "Which organ is affected?"),
        ("Which of these is the diagnosis?", "What is the diagnosis?"),
        (
            "In this image, which of the following abnormalities can be seen?",
            "In this image, which abnormalities can be seen?",
        ),
        ("Select the correct diagnosis for this image.", "What is the diagnosis for this image?"),
        ("Choose the best answer: What organ is shown?", "What organ is shown?"),
        ("Select the option that best describes the lesion.", "What best describes the lesion?"),
        ("Please choose the most appropriate modality from the options below.", "What is the modality?"),
        ("Pick the right option to describe the image.", "What describes the image?"),
        ("Identify the correct anatomical region in this picture.", "What is the anatomical region in this picture?"),
        ("What disease is seen in the image, among these options?", "What disease is seen in the image?"),
        ("What disease is shown, from the following options?", "What disease is shown?"),
        ("What is the modality in the options?", "What is the modality?"),
        ("Among the following options, which modality was used?", "Which modality was used?"),
        ("What is the grade of retinopathy? (select one)", "What is the grade of retinopathy?"),
        ("What type of image is this? A) CT B) MRI C) X-ray", "What type of image is this?"),
        ("What is shown? Options: A: lung, B: liver", "What is shown?"),
        ("What is the image showing?", "What is the image showing?"),
        ("Is there any tumor in the image?", "Is there any tumor in the image?"),
    ],
)
def test_rewording(question: str, expected: str) -> None:
    assert reworded(question) == expected
    assert not points_at_options(expected)
    assert reword(case(question)).question == expected


@pytest.mark.parametrize(
    "kept",
    [
        case("Which of the following statements is true?"),
        case("What is seen?", "None of the above", ("CT", "None of the above")),
        case("What is seen?", "A and B", ("CT", "A and B")),
        case("What is seen?", options=()),
    ],
)
def test_what_needs_its_options_keeps_them(kept: Case) -> None:
    assert reword(kept) is kept
    assert not (kept.options and can_be_open(kept))


@pytest.mark.parametrize(
    ("answer", "tidied", "kind"),
    [
        ("Chest region.", "Chest region", "open"),
        ("  Fundus   imaging ", "Fundus imaging", "open"),
        ("CT", "CT", "open"),
        ("MRI.", "MRI", "open"),
        ("CHEST REGION.", "Chest region", "open"),
        ("C. albicans", "C. albicans", "open"),
        ("A mass", "A mass", "open"),
        ("i.v.", "i.v.", "open"),
        ("Yes.", "yes", "closed"),
        ("NO", "no", "closed"),
    ],
)
def test_answers(answer: str, tidied: str, kind: str) -> None:
    made = reword(case("What is seen?", answer))
    assert (made.answer, made.kind) == (tidied, kind)


@pytest.mark.parametrize("answer", ["B: Diffuse uptake", "Diffuse uptake", "B", "(b)"])
def test_the_answer_is_the_option_in_its_place_without_its_label(answer: str) -> None:
    assert reword(case("What is seen?", answer, ("A: Focal uptake", "B: Diffuse uptake"))).answer == "Diffuse uptake"


@given(st.text(max_size=80), st.text(max_size=20), st.lists(st.text(max_size=10), max_size=4))
def test_any_text_is_reworded_without_an_error(question: str, answer: str, options: list[str]) -> None:
    made = reword(case(question, answer, tuple(options)))
    assert made.options == () or made.question == question
    assert reworded(question) or not question.strip()
