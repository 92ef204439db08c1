"""Normalisation as in published VQA code, used where comparison with that code matters.

It drops signs (HER2- becomes HER2+), so `tasks.text.meaning` decides whether two answers say the same.

It follows `preprocess_answer` of MEVF (aioz-ai/MICCAI19-MedVQA, tools/compute_softscore.py), which derives from the
official VQA evaluation. These are the rules, with the reason for each deviation from that source.

1. Unicode: compatibility forms are unified (NFKC), so full-width and composed characters equal their plain forms.
2. Lower case, and one space between words.
3. Apostrophes are deleted: "don't" and "dont" are one word. MEVF lists some 120 contractions for the same effect; MUMC
   deletes the mark, as here.
4. A comma between digits is deleted ("1,000" is "1000"), and so is a full stop without a digit after it ("i.v." is
   "iv").
5. Any other mark or symbol becomes a space, except the percent sign. MEVF lists 21 ASCII marks; the others, as in
   "**Yes**:" or "肺、心脏", come from language models and from Chinese. MEVF also deletes a mark without leaving a
   space where the same answer has that mark beside a space: "non-contrast CT - axial" becomes "noncontrast". That is
   not copied.
6. The words none and zero to ten become digits.
7. The words a, an and the are deleted.
8. "x ray" becomes "xray", also in "x rays", as whole words (MEVF also changes "max ray").
9. A space beside a Chinese character is deleted: Chinese is written without spaces.
10. Nothing becomes empty: an answer of articles only keeps them (option "A"), an answer of marks only keeps its marks.
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


@lru_cache(maxsize=2**14)  # scores normalise the same text several times, and answers repeat
def normalise(text: str) -> str:
    """Normalise an answer by the rules above. Any string is accepted, and a normalised one stays as it is."""
    plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    words = _words(plain)
    kept = [word for word in words if word not in ARTICLES] or words
    joined = SPACE_BESIDE_HAN.sub("", X_RAY.sub("xray", " ".join(kept)))
    # Lower case and deleted marks can bring a letter and its accent together.
    return unicodedata.normalize("NFC", joined or plain)


def _words(plain: str) -> list[str]:
    """Apply rules 3 to 6."""
    text = NUMERIC_COMMA_OR_STOP.sub("", APOSTROPHE.sub("", plain))
    text = "".join(character if _is_kept(character) else " " for character in text)
    return [NUMBERS.get(word, word) for word in text.split()]


def _is_kept(character: str) -> bool:
    """Whether a character is a letter, accent, digit, percent sign or decimal point (rule 4 left no other stop)."""
    return unicodedata.category(character)[0] in "LMN" or character in ".%"
