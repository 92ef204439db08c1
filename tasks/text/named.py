"""Finds which of several options a reply names."""

import re
import unicodedata
from collections.abc import Sequence

from tasks.text.meaning import polarity
from tasks.text.reply import final
from tasks.text.words import BREAK, pieces

ALONE = r"(?<![A-Za-z0-9])(?<![A-Za-z]['\u2019])(?:{})(?![A-Za-z0-9'\u2019-])"
CAPITAL = ALONE.format("(?-i:[A-Z])")
AND = r"\s*(?:,|/|&|\band\b|\bn?or\b|和|或|、|与)\s*(?:option\s+)?"
GROUP = rf"[(\[\"'*]*{CAPITAL}[)\]\"'*]*(?:{AND}[(\[]?{CAPITAL}[)\]]?)*"
DENIED_LETTER = re.compile(
    rf"(?:\b(?:not|n['\u2019]t(?:\s+be)?|never|neither|nor|unlike|rather\s+than|instead\s+of|than|except(?:\s+for)?"
    rf"|exclud(?:e|es|ing)|rul(?:e|es|ing)\s+out)\b|不是|并非|而非|非|不选|排除)"
    rf"\s*(?:(?:option|choice|answer|the|be)\s+|选项)*{GROUP}(?:\s*[,;，]?\s*(?:\bbut\b|而是))?"
    rf"|(?:\boptions?\s+|\bchoices?\s+|选项)?{GROUP}\s*(?:(?:is|are|was|were|seems?|can\s+be|could\s+be|would\s+be)\s*)*"
    rf"(?:(?<=s|e)\s*(?:not|n['\u2019]t)\b[^.,;\n]*|\b(?:isn['\u2019]t|aren['\u2019]t|cannot|can['\u2019]t)\b[^.,;\n]*"
    rf"|\b(?:wrong|incorrect|false|excluded|unlikely|ruled\s+out)\b|(?:选项|是|都)*(?:错|不对|不正确|不是))",
    re.IGNORECASE,
)
"""Letters that a reply denies: `not A but`, `A is wrong`."""
LEADING = (
    "so|thus|therefore|hence|i|we|think|believe|choose|select|pick|say|would|will|id|go|with|my|your|the|it|its|this"
    "|that|is|s|be|must|should|most|likely|probably|correct|right|best|final|answer|option|choice|letter"
)
LEAD = rf"^(?:(?:{LEADING})\b|选项?|选择|应|故|因此|所以|答案|正确|是|为|该|我|认为|[^\w<>+%-])*?"
BEHIND = (
    r"(?P<end>\s*$|\s*\n)|\s*[)\]}}\"'*]*(?:\s*$|\s*\n|\s*[.:,;!?，。、；)\]}}\"'*(（]|\s+[-\u2013\u2014]|\s*\u2014)"
    r"|\s+(?=(?:because|since|as|is|due|for|rather|instead|would|seems)\b)|\s*(?=选项|是|因为|正确|对)"
)
NAMES = re.compile(rf"{LEAD}(?P<letter>{ALONE.format('[A-Za-z]')})(?:{BEHIND})(?P<rest>.*)$", re.IGNORECASE | re.DOTALL)
"""A reply that is a letter or begins with one. Without a mark or a reason after it, `A` may be an article."""
CHOSEN = re.compile(
    rf"(?:\b(?:choose|choosing|select|pick|option|choice|go\s+with)\s+(?:option\s+)?|选择?|选项)\s*[(\[\"'*]*({CAPITAL})",
    re.IGNORECASE,
)
OTHER_LABEL = re.compile(rf"({CAPITAL})\s*[.):：]")
LABELLED_LINE = re.compile(rf"^\W*({CAPITAL})\s*[.):：]", re.MULTILINE)
TOO = re.compile(rf"\W*(?:and|or|和|或|与|及)?\W*({CAPITAL})\W*(?:$|\bare\b|\bis\b|\bboth\b|or\b|and\b)", re.IGNORECASE)
REASON = re.compile(r"\b(?:because|since|as)\b|因为|\n|(?<!\b\w)\.\s|[;；!?]\s|[。；]")

NOT_BEFORE = re.compile(
    r"(?:(?<!\S)(?:not|cannot|\w+nt|never|neither|nor|unlike|than|except|excludes?|excluding|rules? out|ruled out"
    r"|instead of|without|lacks?|absence of|negative for|free of)(?: (?!only|just|doubt|sure|but|\|)\S+){0,4}"
    r"|(?<!\S)(?:no|non)(?: (?:evidence|signs?|indication|suggestion|features?) (?:of|for))?"
    r"|不 是|并 非|而 非|非|不|排 除|没 有|无|除 了) ?$"
)
NOT_BEHIND = re.compile(
    r" (?:(?:is|was|are|were|seems?|can|could|would|should|has|have|be|been|scan|image|option|answer) )*"
    r"(?:(?:(?<=is )|(?<=was )|(?<=are )|(?<=were )|(?<=be )|(?<=can )|(?<=could )|(?<=would ))not"
    r"|cannot|(?:is|was|are|were|ca|could|would)nt|wrong|incorrect|false|excluded|unlikely|impossible|absent|ruled out"
    r"|less likely|不 对|不 正 确|不 是|错|被 排 除|排 除)(?!\S)"
)
"""Words that deny an option, in the clause before it and after it."""


def named(text: str, options: Sequence[str], letters: str) -> int | None:
    """Which option a reply names that is not itself an option's text, from 0; None where that is unclear.

    Args:
        text: the reply, as written.
        options: as offered, without labels.
        letters: of the options, upper case, one each; there may be more of them.
    """
    reply = unicodedata.normalize("NFKC", final(text)).strip()
    held = _Held(options)
    lines = [line for line in reply.splitlines() if line.strip()]
    for part in (reply, *lines[-1:], *_chosen(reply)):
        if (found := _letter(part, letters[: len(options)], held)) is not None:
            return _agreed(*found, held, letters[: len(options)])
    places = held.by(reply) or _by_polarity(reply, options)
    return places.pop() if len(places) == 1 else None


def _chosen(reply: str) -> list[str]:
    """The letter that a reply chooses in the middle of its text; empty where there is none or more than one."""
    found = {each.upper() for each in CHOSEN.findall(DENIED_LETTER.sub(" ", reply))}
    return list(found) if len(found) == 1 else []


def _letter(reply: str, letters: str, held: "_Held") -> tuple[int, str] | None:
    """Index of the letter that a reply begins with, once denied letters are removed, and the text after it.

    None where there is none, or where it is the first word of an option, as in `C. albicans`.
    """
    text = DENIED_LETTER.sub(" ", reply).strip()
    match = NAMES.match(text)
    place = letters.find(match["letter"].upper()) if match else -1
    if match is None or place < 0 or held.begins(text[match.start("letter") :]):
        return None
    return place, "\n" * (match["end"] is not None) + match["rest"]


def _agreed(place: int, rest: str, held: "_Held", letters: str) -> int | None:
    """The index of the letter; None where the text after it names another option."""
    first = REASON.split(rest, maxsplit=1)[0]
    names = held.by(first)
    others = LABELLED_LINE.findall(rest.partition("\n")[2])
    others += [] if names else [*OTHER_LABEL.findall(rest), *TOO.findall(first)]
    found = {letters.find(each.upper()) for each in others} | names
    return None if found - {place, -1} else place


def _by_polarity(reply: str, options: Sequence[str]) -> set[int]:
    """The options that are the yes or no that a reply says."""
    said = polarity(reply)
    return {place for place, option in enumerate(options) if said and len(option) < 4 and polarity(option) == said}


class _Held:
    """The options whose words a text contains, unless they are only part of another option or denied."""

    def __init__(self, options: Sequence[str]) -> None:
        words = {place: [each for each in pieces(option) if each != BREAK] for place, option in enumerate(options)}
        between = rf"(?: \{BREAK})* "
        self._patterns = [
            (place, re.compile(rf"(?<!\S){between.join(map(re.escape, each))}(?!\S)"))
            for place, each in sorted(words.items(), key=lambda item: -len(" ".join(item[1])))
            if each
        ]

    def begins(self, text: str) -> bool:
        """Whether the text begins with the words of an option."""
        said = " ".join(pieces(text))
        return any(pattern.match(said) for _, pattern in self._patterns)

    def by(self, text: str) -> set[int]:
        """Indices of the options that the text names."""
        said = " ".join(pieces(text))
        found = set()
        for place, pattern in self._patterns:
            spans = [each.span() for each in pattern.finditer(said)]
            if any(not (NOT_BEFORE.search(said[:start]) or NOT_BEHIND.match(said[end:])) for start, end in spans):
                found.add(place)
            said = pattern.sub(lambda match: "\u2588" * len(match[0]), said)
        return found
