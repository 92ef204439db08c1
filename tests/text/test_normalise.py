"""Normalisation against examples written by hand from MEVF's rules, and properties that hold for any text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.text.meaning import polarity
from tasks.text.normalise import normalise

VQA_RAD = Path("../shared/datasets/vqa-rad-osf/VQA_RAD Dataset Public.json")
SLAKE = Path("../shared/datasets/slake/train.json")

TRICKY = st.sampled_from([*"aAn xray-.,;'’%15（，。肺光 \t\u0301\u0327\u200bİΣ가ㄱ", "the ", "x ray", "None", "\ud800"])
TEXT = st.text(st.characters()) | st.lists(TRICKY | st.characters()).map("".join)

AS_MEVF = [
    ("Yes", "yes"),
    ("NO ", "no"),
    ("Not sure.", "not sure"),
    ("The liver", "liver"),
    ("a mass in an artery", "mass in artery"),
    ("None", "0"),
    ("Two", "2"),
    ("ten ribs", "10 ribs"),
    ("Chest X-ray", "chest xray"),
    ("X ray", "xray"),
    ("Xray - plain film", "xray plain film"),
    ("x-rays", "xrays"),
    ("MRI/FLAIR", "mri flair"),
    ("enlarged, fluid-filled", "enlarged fluid filled"),
    ("Diffusion Weighted Imaging (DWI)", "diffusion weighted imaging dwi"),
    ("6.5 x 6.2 x 8.8cm", "6.5 x 6.2 x 8.8cm"),
    ("5%", "5%"),
    (">12", "12"),
    ("lungs \tbony thoracic cavit y", "lungs bony thoracic cavit y"),
    ("1,000", "1000"),
    ("i.v. contrast", "iv contrast"),
    ("another theatre", "another theatre"),
    ("nonetheless", "nonetheless"),
]

BEYOND_MEVF = [
    ("dont", "dont"),
    ("don't", "dont"),
    ("don’t", "dont"),
    ("**Yes**: seen", "yes seen"),
    ("non-contrast CT - axial", "non contrast ct axial"),
    ("max ray", "max ray"),
    ("x rayon", "x rayon"),
    ("left–right", "left right"),
    ("ＣＴ１２", "ct12"),
    ("cafe\u0301", "caf\u00e9"),
    ("cafe'\u0301", "caf\u00e9"),
]

CHINESE = [
    ("肺", "肺"),
    ("左肺, 右侧", "左肺右侧"),
    ("左肺，右侧。", "左肺右侧"),
    ("X 光", "x光"),
    ("胸部X-Ray", "胸部xray"),
    ("T2 加权", "t2加权"),
    ("不包含", "不包含"),
]

NEVER_EMPTIED = [
    ("A", "a"),
    ("A.", "a"),
    ("the", "the"),
    ("+", "+"),
    ("...", "..."),
    ("。", "。"),
    (" ", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), AS_MEVF + BEYOND_MEVF + CHINESE + NEVER_EMPTIED)
def test_examples(text: str, expected: str) -> None:
    assert normalise(text) == expected


@settings(deadline=None)
@given(TEXT)
def test_idempotent_and_total(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@settings(deadline=None)
@given(TEXT)
def test_only_blank_text_gives_nothing(text: str) -> None:
    assert normalise(text) or not text.strip()


def test_every_character_is_stable() -> None:
    every = "-".join(map(chr, range(0x3000))) + "".join(map(chr, range(0xF900, 0xFFFF)))
    assert normalise(normalise(every)) == normalise(every)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("NO, there is not", "no"),
        ("**Yes**, it is", "yes"),
        ("Yes，是的", "yes"),
        ("yes yes", "yes"),
        ("yes and no", None),
        ("cannot know, eyes", None),
        ("normal", None),
        ("none", None),
        ("not sure", None),
        ("是", "yes"),
        ("A", None),
        ("", None),
    ],
)
def test_polarity(text: str, expected: str | None) -> None:
    assert polarity(text) == expected


@settings(deadline=None)
@given(TEXT)
def test_polarity_is_total(text: str) -> None:
    assert polarity(text) in ("yes", "no", None)


SAYS_YES = {"yes", "有", "是", "是的", "存在", "包括", "包含", "可以"}
SAYS_NO = {"no", "无", "没有", "否", "不是", "不存在", "不包括", "不包含", "不可以"}
"""Of the published answers."""


@pytest.mark.parametrize("path", [VQA_RAD, SLAKE], ids=lambda path: path.parent.name)
def test_published_answers(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    answers = {str(row["answer"]) for row in json.loads(path.read_text(encoding="utf-8"))}
    for answer in answers:
        assert bool(normalise(answer)) == bool(answer.strip())
        assert normalise(normalise(answer)) == normalise(answer)
        said = answer.strip().lower()
        assert polarity(answer) == ("yes" if said in SAYS_YES else "no" if said in SAYS_NO else None)
