"""The normalisation of the visual question answering family, for what is compared as published code compares it.

It drops signs (HER2- is HER2+), so whether two answers say the same is told by `tasks.text.meaning` instead.

It follows `preprocess_answer` of MEVF (aioz-ai/MICCAI19-MedVQA, tools/compute_softscore.py), which descends from
the official VQA evaluation. These are the rules, with a reason wherever they depart from that source.

1. Unicode: compatibility forms are unified (NFKC), so full-width and composed characters equal their plain forms.
2. Lower case, and one space between words.
3. An apostrophe goes: "don't" and "dont" are one word. MEVF lists some 120 contractions to the same end; MUMC
   deletes the mark, as here.
4. A comma between digits goes ("1,000" is "1000"), and so does a full stop that no digit follows ("i.v." is "iv").
5. Any other mark or symbol becomes a space, save the percent sign. MEVF names 21 ASCII marks; the rest, as in
   "**Yes**:" or "肺、心脏", come from language models and from Chinese. MEVF also deletes a mark without leaving a
   space where the same answer holds it beside a space: "non-contrast CT - axial" then reads "noncontrast". That is
   not repeated.
6. The words none and zero to ten become digits.
7. The words a, an and the go.
8. "x ray" is "xray", also in "x rays", as whole words (MEVF alters "max ray" too).
9. A space beside a Chinese character goes: Chinese is written without.
10. Nothing is emptied: an answer of articles alone keeps them (option "A"), an answer of marks alone keeps its marks.
    Only blank text gives "".
"""

import re
import unicodedata
from functools import lru_cache

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""One Chinese character."""
APOSTROPHE = re.compile("['\u2018\u2019\u02bc]")
NUMERIC_COMMA_OR_STOP = re.compile(r"(?<=\d),(?=\d)|\.(?!\d)")
X_RAY = re.compile(r"(?<![a-z0-9])x ray(?=s?(?![a-z0-9]))")
SPACE_BESIDE_HAN = re.compile(f" (?={HAN.pattern})|(?<={HAN.pattern}) ")

ZERO_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(value) for value, word in enumerate(ZERO_TO_TEN)}
ARTICLES = {"a", "an", "the"}


@lru_cache(maxsize=2**14)  # a score asks for the same text several times, and answers repeat
def normalise(text: str) -> str:
    """The normalised form of an answer, by the rules above; of any string, and of its own result the same again."""
    plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    words = _words(plain)
    kept = [word for word in words if word not in ARTICLES] or words
    joined = SPACE_BESIDE_HAN.sub("", X_RAY.sub("xray", " ".join(kept)))
    # Lower case and deleted marks can bring a letter and its accent together.
    return unicodedata.normalize("NFC", joined or plain)


def _words(plain: str) -> list[str]:
    """Rules 3 to 6."""
    text = NUMERIC_COMMA_OR_STOP.sub("", APOSTROPHE.sub("", plain))
    text = "".join(character if _is_kept(character) else " " for character in text)
    return [NUMBERS.get(word, word) for word in text.split()]


def _is_kept(character: str) -> bool:
    """Whether it is a letter, an accent, a digit, a percent sign or a decimal point (rule 4 left no other point)."""
    return unicodedata.category(character)[0] in "LMN" or character in ".%"
