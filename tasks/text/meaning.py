"""Whether two answers say the same, and whether one says yes or no."""

import re
import unicodedata
from functools import lru_cache
from typing import Literal

from tasks.text.normalise import HAN, SPACE_BESIDE_HAN, normalise
from tasks.text.reply import final
from tasks.text.words import BREAK, pieces

SAID = {
    "yes": ("是", "是的", "有", "对", "对的", "可以", "存在", "包含", "包括"),
    "no": ("否", "不", "不是", "无", "没有", "不对", "不可以", "不存在", "不包含", "不包括"),
}
"""Chinese for yes and no, as SLAKE answers. 正常 (normal) is neither: whether it affirms depends on the question."""
CHINESE = {word: value for value, words in SAID.items() for word in words}
LONGER = {word for word in CHINESE if len(word) > 1}
CLAUSE_END = re.compile(r"[^\w\s]+")
BETWEEN_ITEMS = re.compile(r"(?<!\d),|,(?!\d)|[;、&和与及]|\band\b", re.IGNORECASE)
DENIED = re.compile(r"\bnot (?:say |a |an )?(?:yes|no)\b|不是没有|不是不|并非没有|并非不")
"""A yes or no that is itself denied."""


@lru_cache(maxsize=2**14)  # a score asks for the same text several times, and answers repeat
def meaning(text: str) -> str:
    """What a reply answers, in one form for all that says the same; "" where it answers nothing.

    Any other string keeps something: one without words keeps its marks.
    """
    answer = final(text)
    joined = " ".join(word for word in pieces(answer) if word != BREAK)
    return SPACE_BESIDE_HAN.sub("", joined) or " ".join(unicodedata.normalize("NFKC", answer).lower().split())


def same(one: str, other: str) -> bool:
    """Whether two answers say the same: of one meaning, or as lists item by item.

    `Left Lung, Right` and `left lung and right` are one list; `Right, Left Lung` is another, for its order tells which
    is which. Items are parted by commas (but not those of 1,000), semicolons, 、, &, and, 和, 与 or 及.
    """
    return meaning(one) == meaning(other) or (len(items := _items(one)) > 1 and items == _items(other))


def polarity(text: str) -> Literal["yes", "no"] | None:
    """Whether an answer as it was written says yes or no, in English or Chinese; None where it says both, or neither.

    English counts by whole words, as in `YOrN_Extraction` of VLMEvalKit: a substring test finds "no" in "know". Chinese
    parts no words, so a clause counts where it is one of the words of `SAID`, or begins with one of two characters or
    more: 没有 holds 有, and 不知道 (do not know) begins with 不.
    """
    answer = final(text)
    if (plain := normalise(answer)) in CHINESE:
        return "yes" if CHINESE[plain] == "yes" else "no"
    if DENIED.search(plain):
        return None
    clauses = ("".join(clause.split()) for clause in CLAUSE_END.split(unicodedata.normalize("NFKC", answer)))
    said = {value for clause in clauses if (value := _said(clause))}
    words = HAN.sub(" ", plain).split()
    said |= {word for word in ("yes", "no") if word in words}
    return None if len(said) != 1 else "yes" if "yes" in said else "no"


def _said(clause: str) -> str | None:
    """What a Chinese clause says."""
    begun = next((word for word in LONGER if clause.startswith(word)), clause)
    return CHINESE.get(begun)


def _items(text: str) -> list[str]:
    parted = BETWEEN_ITEMS.split(unicodedata.normalize("NFKC", final(text).replace("，", ", ")))
    return [item for piece in parted if (item := meaning(piece))]
