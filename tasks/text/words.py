"""Splits an answer into words, numbers and signs, in one form for all spellings that mean the same.

`tasks.text.normalise` drops signs, as published VQA code does. Here nothing is dropped that could distinguish two
findings: signs, comparisons, decimal marks, units, the A of hepatitis A. docs/scoring.md lists the rules.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from tasks.text.normalise import APOSTROPHE, HAN, NUMBERS
from tasks.text.numbers import NUMBER, SIGNS, UNITS, measured, number_words

BREAK = "|"
"""Marks the end of a clause."""
MINUS, STAR, RATIO, PER, NAME = "\u2212", "\u2217", "\u2236", "\u2044", "\u00aa"
"""Signs after they are distinguished from a hyphen, emphasis, a colon and a slash; and the mark of an A that is no
article."""
ALNUM = r"[^\W_]"
WORD = rf"(?<!{ALNUM})(\d*[^\W\d_]{ALNUM}*)"
OPENS = r"(?<![^\s(\[{<>=~≈±≤≥:,;/|\"^])"
"""Before a number's sign."""
CLOSES = r"(?=\s*(?:$|[,;/)\]、。!?|\"”*]|\.(?!\d)))"
"""After a word's sign."""
COUNTED = rf"(?=\s*[-{MINUS}]?(?:\.?\d|(?:one|two|three|four|five|six|seven|eight|nine|ten)\b))"
MORE, LESS = "greater|more|larger|bigger|higher|longer|older", "less|smaller|fewer|lower|shorter|younger"

Made = str | Callable[[re.Match[str]], str]
SUBSTITUTIONS: tuple[tuple[str, Made], ...] = (
    (r"[\u2010-\u2013\ufe63\u2212]", "-"),
    (r"[\u2014\u2015]", " - "),
    (r"-+>", "\u2192"),
    (r"\+\s*/\s*-", "±"),
    (r">=|=>|[≧⩾]", "≥"),
    (r"<=|=<|[≦⩽]", "≤"),
    (rf"\b(?:at least|(?:not?|never) (?:{LESS}) than){COUNTED}|(?:不[小少低]于|至少){COUNTED}", "≥"),
    (rf"\b(?:at most|up to|(?:not?|never) (?:{MORE}) than){COUNTED}|(?:不[大多高]于|不超过|[至最]多){COUNTED}", "≤"),
    (rf"\b(?:(?:{MORE}) than|above|over|exceeding){COUNTED}|(?:[大多高]于|超过){COUNTED}", ">"),
    (rf"\b(?:(?:{LESS}) than|below|under){COUNTED}|(?:[小少低]于|不足){COUNTED}", "<"),
    (r"\b(?:minus|negative)\s+(?=\d)|负\s*(?=\d)", f" {MINUS}"),
    (r"(^|[(\[<>=≥≤:;|\n])\s*-\s+(?=\.?\d)", r"\1 -"),
    (rf"{OPENS}-(?=\.?\d)", f" {MINUS}"),
    (rf"{OPENS}\+(?=\.?\d)", " "),
    (r"(?<=\d)\s*-\s*(?=\d)", " to "),
    (r"阳性|^\s*\++\s*$|[(\[]\s*\+\s*[)\]]|(?<!\w)\+ve\b", " positive "),
    (r"阴性|^\s*-+\s*$|[(\[]\s*-+\s*[)\]]|-ve\b", " negative "),
    (rf"{WORD}(?:\+(?=\s|{CLOSES})|\s\+{CLOSES})", r"\1 positive "),
    (rf"{WORD}(?:-+(?=\s)|\s?-+{CLOSES})", r"\1 negative "),
    (rf"(?<=\d)(?:-+(?=\s)|\s?-+{CLOSES})", f" {MINUS} "),
    (r"(?<!\w)(a)-(?=[^\W\d_])", rf"\1{NAME} "),
    (r"(?<=\d)\s*[x×*]\s*(?=\d)|×", " x "),
    (rf"(?<={ALNUM})\*", f" {STAR} "),
    (r"(?<=\d)\s*:\s*(?=\d)", RATIO),
    (rf"(?<=\d)\s*/\s*(?=[\d{MINUS}])", PER),
    (r"\bper ?cent\b", "%"),
    (r"(?<=\d)\s*毫米", " mm "),
    (r"(?<=\d)\s*(?:厘米|公分)", " cm "),
    (rf"(?<!{ALNUM})[^\W\d_](?:\.[^\W\d_])+\.?(?!{ALNUM})", lambda found: found[0].replace(".", "")),
    (r"(?<=[^\W\d_])\.(?=\d)|\.(?!\d)|,(?!\d)|(?<!\d),|[;:!?、。\n]", f" {BREAK} "),
    (rf"({HAN.pattern})", r" \1 "),
)
"""Applied in this order to text in NFKC, ignoring case."""
RULES = [(re.compile(pattern, re.IGNORECASE), made) for pattern, made in SUBSTITUTIONS]
WITHIN_NFKC = [
    (re.compile(r"(?<=\d)([⁺⁻]?[⁰¹²³⁴-⁹]+)"), r"^\1"),
    (re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])"), " "),
    (re.compile("，"), ", "),
    (re.compile(r"[|\u00aa©®]"), " "),
]
"""Applied before NFKC, which would merge 10⁵ with 105, 1½ with 11⁄2, and a separating comma with a decimal one."""
GLUED = re.compile(rf"([{SIGNS}])\s+(?=[{SIGNS}\s]*\.?\d)")
DROPPED = "`´¨$"

NAMED_BY_LETTER = re.compile(
    "hepatitis|vitamin|influenza|type|group|grade|class|stage|category|point|factor|ha?emophilia|protein|serotype"
    "|subtype|streptococcus|weber|pugh|option|panel|figure|immunoglobulin|apolipoprotein|lead|level|zone",
    re.IGNORECASE,
)
"""Words after which an `a` is a name."""
BEFORE_ARTICLE = re.compile(
    "of|with|is|in|has|have|and|or|as|was|are|for|from|to|by|on|at|not|like|no|shows", re.IGNORECASE
)
"""Words after which even a capital A, as in a title, is an article."""


@lru_cache(maxsize=2**14)
def pieces(text: str) -> tuple[str, ...]:
    """The words, numbers and signs of a text in lower case, with `BREAK` where a mark ends a clause.

    Each Chinese character is a word. A number includes the signs before it and its unit: `< 5 cm` becomes `<50mm`.
    """
    for pattern, made in WITHIN_NFKC:
        text = pattern.sub(made, text)
    text = APOSTROPHE.sub("", unicodedata.normalize("NFKC", text))
    for rule, becomes in RULES:
        text = rule.sub(becomes, text)
    spaced = GLUED.sub(r"\1", "".join(map(_spaced, text)))
    found = [part for word in spaced.split() for part in _parts(word)]
    kept = [word for place, word in enumerate(found) if not _is_article(found, place)]
    if all(word == BREAK for word in kept):
        kept = found
    lower = [unicodedata.normalize("NFC", word.lower().replace(NAME, "")) for word in kept]
    return tuple(measured(_xray([NUMBERS.get(word, word) for word in lower])))


def _spaced(character: str) -> str:
    """Keep letters, accents, digits and their marks; put spaces around signs; replace everything else by a space."""
    category = unicodedata.category(character)
    if category[0] in "LMN" or character in (".", ",", MINUS):
        return character
    if category == "Cf":
        return ""
    keeps = category in ("Sm", "So", "Sk") or character in ("%", "‰", BREAK)
    return f" {character} " if keeps and character not in DROPPED else " "


def _parts(word: str) -> list[str]:
    """Split a number, in one form, from its unit; any other word stays whole."""
    found = NUMBER.match(word)
    behind = word[found.end() :] if found else word
    if not found or (behind and behind.lower() not in UNITS):
        return [word.strip(".,") or word]
    numbers = number_words(found[2])
    return [found[1] + numbers[0], *numbers[1:], *([behind] if behind else [])]


def _is_article(found: Sequence[str], place: int) -> bool:
    """Whether a word is `the`, `an`, or an `a` that is not a name, as in hepatitis A."""
    word = found[place]
    if word.lower() != "a":
        return word.lower() in ("an", "the")
    before = found[place - 1] if place else BREAK
    behind = found[place + 1 :]
    if not behind or not behind[0][0].isalnum() or HAN.match(behind[0]):
        return False
    if len(behind) == 1 and behind[0].lower() in ("positive", "negative"):
        return False
    if before == BREAK or BEFORE_ARTICLE.fullmatch(before):
        return True
    capital = word == "A" and any(character.islower() for each in found for character in each)
    return not NAMED_BY_LETTER.fullmatch(before) and not capital


def _xray(found: Sequence[str]) -> list[str]:
    """Join the words x ray into one word, as they are often written."""
    text = "\n".join(found)
    return re.sub(r"(?<![^\n])x\n(?=rays?(?![^\n]))", "x", text).split("\n") if found else []
