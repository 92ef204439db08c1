"""Whether two answers mean the same, and whether an answer says yes or no."""

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
"""Chinese words for yes and no, as in SLAKE. 正常 (normal) is neither: whether it affirms depends on the question."""
CHINESE = {word: value for value, words in SAID.items() for word in words}
LONGER = {word for word in CHINESE if len(word) > 1}
CLAUSE_END = re.compile(r"[^\w\s]+")
BETWEEN_ITEMS = re.compile(r"(?<!\d),|,(?!\d)|[;、&和与及]|\band\b", re.IGNORECASE)
DENIED = re.compile(r"\bnot (?:say |a |an )?(?:yes|no)\b|不是没有|不是不|并非没有|并非不")
"""A yes or no that is negated."""


@lru_cache(maxsize=2**14)  # scores normalise the same text several times, and answers repeat
def meaning(text: str) -> str:
    """The meaning of a reply as text: equal for replies that say the same; "" where the reply answers nothing.

    Any other string leaves something: a string without words keeps its marks.
    """
    answer = final(text)
    joined = " ".join(word for word in pieces(answer) if word != BREAK)
    return SPACE_BESIDE_HAN.sub("", joined) or " ".join(unicodedata.normalize("NFKC", answer).lower().split())


def same(one: str, other: str) -> bool:
    """Whether two answers say the same: equal in meaning, or lists that are equal item by item.

    `Left Lung, Right` and `left lung and right` are one list; `Right, Left Lung` is another, as the order matters.
    Items are separated by commas (but not those of 1,000), semicolons, 、, &, and, 和, 与 or 及.
    """
    return meaning(one) == meaning(other) or (len(items := _items(one)) > 1 and items == _items(other))


def polarity(text: str) -> Literal["yes", "no"] | None:
    """Whether an answer, as written, says yes or no in English or Chinese; None where it says both or neither.

    English is matched by whole words, as in `YOrN_Extraction` of VLMEvalKit: a substring test finds "no" in "know".
    Chinese has no spaces between words. A clause counts where it is one of the words of `SAID`, or begins with one of
    at least two characters: 没有 contains 有, and 不知道 (do not know) begins with 不.
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
    """Whether a Chinese clause says yes or no; None where neither."""
    begun = next((word for word in LONGER if clause.startswith(word)), clause)
    return CHINESE.get(begun)


def _items(text: str) -> list[str]:
    parted = BETWEEN_ITEMS.split(unicodedata.normalize("NFKC", final(text).replace("，", ", ")))
    return [item for piece in parted if (item := meaning(piece))]
