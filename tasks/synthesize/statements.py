"""Reads what a caption states: which findings, present or absent, on which side, where, how large."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from tasks.synthesize.findings import GENERAL, MASSES, PATTERN, kind_of
from tasks.synthesize.lexicon import ANATOMY, DIMENSIONS, PLACE_PHRASE, values
from tasks.synthesize.negation import CUE, VERB, State, denied, rest, state_of

SENTENCE_END = re.compile(r"[.!?;:](?=\s|$)|(?<=[a-z])\.(?=[A-Z])|\n\s*\n|\s[-•]\s")
ABBREVIATION = re.compile(r"(?:\b[A-Za-z]|\b(?:vs|cf|fig|approx|e\.g|i\.e|dr|no|post|abd))$", re.IGNORECASE)
BREAK = re.compile(r"\b(?:but|however|although|though|whereas|while|except|apart from|other than|yet)\b", re.IGNORECASE)
_STOP = """
    a an the and or of in on with to by for from at as is are was were within without no this these that which seen
    noted having containing involving causing"""
PREMODIFIER_STOP = frozenset(_STOP.split())
"""Words that end the search for a finding's adjectives."""
LINK = re.compile(
    r"\s+(?:(?:is|are|was|were|seen|noted|present|identified|located|centered|arising|visible|visualized)\s+)*"
    r"(?:in|within|on|of|at|involving|from)\s+(?:the\s+)?",
    re.IGNORECASE,
)
SECOND_PLACE = re.compile(rf"\s*(?:,|and|or|/|&|,\s*and|greater|more|to)\s*(?:the\s+)?{ANATOMY.pattern}", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """A mention of a finding in a caption."""

    name: str
    state: State
    start: int
    end: int
    """End of the span with adjectives and place, or with the negation: the words that support a pair."""
    at: tuple[int, int]
    """Span of the finding's name alone."""
    sides: frozenset[str] = frozenset()
    size: str | None = None
    place: str | None = None
    """As in the caption, where it is more than a side."""
    adjectives: str = ""
    """The words before the finding, such as `small left`, in lower case."""


@lru_cache(maxsize=4096)
def read_mentions(text: str) -> tuple[Mention, ...]:
    """Every mention of a finding in a caption, in order."""
    return tuple(mention for start, end in _sentences(text) for mention in _read_sentence(text, start, end))


def stated(mentions: Sequence[Mention]) -> tuple[dict[str, list[Mention]], dict[str, Mention]]:
    """The findings that are certainly present, and those that are certainly absent, by name.

    A finding stated both ways is neither, and one that is unclear elsewhere is not absent. No kind of mass is absent
    where another kind is mentioned otherwise, and abnormality is absent only where every other mentioned finding is.
    """
    states: dict[str, set[State]] = {}
    for mention in mentions:
        states.setdefault(mention.name, set()).add(mention.state)
    present = {
        name: [mention for mention in mentions if mention.name == name and mention.state == "present"]
        for name, found in states.items()
        if "present" in found and "absent" not in found
    }
    doubtful = {name for name, found in states.items() if found != {"absent"}}
    absent: dict[str, Mention] = {}
    for mention in mentions:
        rivals = (
            doubtful if mention.name == GENERAL else doubtful & (MASSES if mention.name in MASSES else {mention.name})
        )
        if mention.state == "absent" and not rivals and mention.name not in doubtful:
            absent.setdefault(mention.name, mention)
    return present, absent


def _sentences(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if match[0] != "." or not ABBREVIATION.search(text, start, match.start()):
            # A question mark belongs to its sentence, which it makes doubtful as a whole.
            spans.append((start, match.end() if match[0] == "?" else match.start()))
            start = match.end()
    return [*spans, (start, len(text))]


def _read_sentence(text: str, start: int, end: int) -> list[Mention]:
    found: list[Mention] = []
    edges = [start, *(match.start() for match in BREAK.finditer(text, start, end)), end]
    for clause_start, clause_end in pairwise(edges):
        matches = list(PATTERN.finditer(text, clause_start, clause_end))
        for number, match in enumerate(matches):
            before = matches[number - 1].end() if number else clause_start
            after = matches[number + 1].start() if number + 1 < len(matches) else clause_end
            found.append(_mention(text, (clause_start, clause_end), (before, after), match))
    return found


def _mention(text: str, clause: tuple[int, int], free: tuple[int, int], match: re.Match[str]) -> Mention:
    """Read the mention at a match.

    Args:
        text: the caption.
        clause: its bounds.
        free: from the end of the previous finding to the start of the next.
        match: the finding's words.
    """
    name = kind_of(match[0]).name
    state, start, end = state_of(text, clause, match)
    if state == "absent":
        return _absent(text, name, (start, end), clause[1], match)
    start = _premodifiers(text, free[0], match.start())
    adjectives = text[start : match.start()]
    sizes = [size for size, pattern in DIMENSIONS["size"].items() if pattern.search(adjectives)]
    sides, place, end = values("side", adjectives), None, match.end()
    link = LINK.match(text, end, free[1])
    phrase = PLACE_PHRASE.match(text, link.end(), free[1]) if link else None
    if phrase and not SECOND_PLACE.match(text, phrase.end(), clause[1]):
        end = phrase.end()
        sides |= values("side", phrase[0])
        bare = DIMENSIONS["side"]["left"].sub("", DIMENSIONS["side"]["right"].sub("", phrase[0]))
        place = phrase[0] if bare.replace("side", "").strip() else None
    elif phrase:  # several places: the side is ambiguous
        sides = {"left", "right"}
    size = sizes[0] if len(sizes) == 1 else None
    return Mention(name, state, start, end, match.span(), frozenset(sides), size, place, _one_line(adjectives))


def _absent(text: str, name: str, span: tuple[int, int], clause_end: int, match: re.Match[str]) -> Mention:
    """Read a denied finding; it is unclear where the following words limit the denial to something that is no place."""
    if span[0] == match.start():  # "a fistula is not seen" is unambiguous
        return Mention(name, "absent", *span, match.span())
    cue = next(CUE.finditer(text[span[0] : span[1]]))
    adjectives = denied(text[span[0] + cue.end() : match.start()]) or ""
    tail = text[match.end() : clause_end]
    link = LINK.match(tail)
    phrase = PLACE_PHRASE.match(tail, link.end()) if link else None
    if phrase and not rest(tail[phrase.end() :]):
        end = match.end() + phrase.end()
        return Mention(name, "absent", span[0], end, match.span(), place=phrase[0], adjectives=adjectives)
    return Mention(name, "unclear" if rest(tail) else "absent", *span, match.span(), adjectives=adjectives)


def _one_line(text: str) -> str:
    return " ".join(text.lower().split())


def _premodifiers(text: str, lowest: int, start: int) -> int:
    """Where the adjectives before a finding begin."""
    for word in reversed(list(re.finditer(r"[^\s,/()]+|[,/()]", text[lowest:start]))[-6:]):
        if word[0].lower() in PREMODIFIER_STOP or not word[0][0].isalnum() or VERB.fullmatch(word[0]):
            break
        start = lowest + word.start()
    return start
