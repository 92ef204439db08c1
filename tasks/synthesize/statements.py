"""What a caption states: which findings, present or absent, on which side, where, how large.

Negation follows the idea of NegEx (Chapman et al. 2001): a cue, a scope that ends with the clause, and phrases that
look like a cue and are none. Where NegEx decides for one of two, this reader has a third outcome: what is hedged, past,
or denied of a part only ("the left lung has no mass", "no new lesion") is unclear, and nothing is asked about it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from tasks.synthesize.findings import GENERAL, MASSES, PATTERN, kind_of
from tasks.synthesize.lexicon import ANATOMY, DIMENSIONS, PLACE_PHRASE, values

State = Literal["present", "absent", "unclear"]

SENTENCE_END = re.compile(r"[.!?;:](?=\s|$)|(?<=[a-z])\.(?=[A-Z])|\n\s*\n|\s[-•]\s")
ABBREVIATION = re.compile(r"(?:\b[A-Za-z]|\b(?:vs|cf|fig|approx|e\.g|i\.e|dr|no|post|abd))$", re.IGNORECASE)
BREAK = re.compile(r"\b(?:but|however|although|though|whereas|while|except|apart from|other than|yet)\b", re.IGNORECASE)
IMAGED = (
    r"(?:on|in|with|by)\s+(?:this|the|these)\s+(?:\w+\s+)?(?:images?|study|scan|slices?|exam|examination|ct|mri|mr)"
)
PSEUDO = re.compile(
    r"\bno\s+(?:\w+\s+)?(?:change|increase|decrease|growth|progression|interval)\w*|\bnot\s+only\b|\bno\s+doubt\b"
    r"|\bwith(?:out)?\s+(?:and|or)\s+with(?:out)?\b"
    r"|\bwithout\s+(?:(?:iv|intravenous|oral|and|or)\s+)*contrast\b(?!\s+(?:enhancement|extravasation))",
    re.IGNORECASE,
)
CUE = re.compile(
    r"\b(?:no\s+(?:evidence|signs?|indication)\s+(?:of|for)|without(?:\s+evidence\s+of)?|negative\s+for|absence\s+of"
    r"|free\s+of|lack\s+of|rul(?:es?|ed|ing)\s+out|neither|nor|no)\b",
    re.IGNORECASE,
)
VAGUE_CUE = re.compile(r"\b(?:not|cannot|never)\b|n't\b", re.IGNORECASE)
AFTER_CUE = re.compile(
    r"\s+(?:(?:is|are|was|were)\s+)?(?:not\s+(?:seen|visible|visuali[sz]ed|identified|present|evident|demonstrated"
    r"|appreciated|noted|detected|shown)|absent|excluded|ruled\s+out)\b",
    re.IGNORECASE,
)
HEDGE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|likely|may|might|could|would|can|suspicious|suspected|suspicion|suggest\w*|concern\w*"
    r"|questionable|question of|differential|versus|vs|rule\s+out|exclude|not\s+(?:been\s+)?(?:excluded|ruled\s+out)|if"
    r"|risk|unlikely|mimic\w*|history\s+of|status\s+post|s/p|prior|previous(?:ly)?|resect\w*|removed|removal|treated"
    r"|resolved|resolution|known|rather\s+than|instead\s+of|usually|typically|often|commonly|patients|due\s+to)\b"
    r"|(?<![\w-])post[- ]?(?:op|surgical)\w*",
    re.IGNORECASE,
)
LATE_HEDGE = re.compile(
    r"\b(?:versus|vs|excluded|suspected|unlikely|resolved|removed|questionable)\b|\?", re.IGNORECASE
)
LINE = re.compile(
    r"\b(?:a|an|the|any|evidence|signs?|of|visible|evident|identifiable|indication|apparent|obvious|either)\b"
)
"""Words of a denial that do not change what is denied."""
LIMITING = re.compile(
    r"\b(?:new|other|additional|further|more|longer|significant|similar|large|larger|dominant|definite|discre?e?te?|gross"
    r"|in|on|at|to|into|within|with|from|by|along|between|as|for|is|are|was|were|has|have|seen|noted|and|that|which|this"
    r"|these|appear\w*|\w+ing|reliable|clear|such|typical|suspicious|residual|recurrent|only)\b"
)
"""Words that deny something of a finding, and not the finding."""
TAIL = re.compile(
    rf"{IMAGED}|\b(?:is|are|was|were|has|have|been|seen|noted|identified|evident|present|visible|visuali[sz]ed|demonstrated"
    r"|detected|appreciated|here|or|nor|no|a|an|any|evidence|of|and)\b|[\s,/.]",
    re.IGNORECASE,
)
VERB = re.compile(r"\b(?:show\w*|demonstrat\w*|reveal\w*|display\w*|with|read as)\b", re.IGNORECASE)
IMAGE_WORD = re.compile(r"\b(?:images?|slices?|scans?|study|view|figure)\b", re.IGNORECASE)
LEAD = re.compile(r"\b(?:there|is|are|was|were|a|an|the|any|incidentally|otherwise)\b|[\s,:-]", re.IGNORECASE)
_STOP = """
    a an the and or of in on with to by for from at as is are was were within without no this these that which seen
    noted having containing involving causing"""
PREMODIFIER_STOP = frozenset(_STOP.split())
"""Words that no adjective of a finding lies beyond."""
LINK = re.compile(
    r"\s+(?:(?:is|are|was|were|seen|noted|present|identified|located|centered|arising|visible|visualized)\s+)*"
    r"(?:in|within|on|of|at|involving|from)\s+(?:the\s+)?",
    re.IGNORECASE,
)
SECOND_PLACE = re.compile(rf"\s*(?:,|and|or|/|&|,\s*and|greater|more|to)\s*(?:the\s+)?{ANATOMY.pattern}", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """A finding where a caption names it."""

    name: str
    state: State
    start: int
    end: int
    """With its adjectives and its place, or with the negation: the words that support what is asked."""
    at: tuple[int, int]
    """The finding's own words."""
    sides: frozenset[str] = frozenset()
    size: str | None = None
    place: str | None = None
    """As the caption writes it, where it says more than the side."""
    adjectives: str = ""
    """The words before the finding, as `small left`, in lower case."""


@lru_cache(maxsize=4096)
def read_mentions(text: str) -> tuple[Mention, ...]:
    """Every finding that a caption names, in its order."""
    return tuple(mention for start, end in _sentences(text) for mention in _read_sentence(text, start, end))


def stated(mentions: Sequence[Mention]) -> tuple[dict[str, list[Mention]], dict[str, Mention]]:
    """Findings that are surely present, and those that are surely absent, by name.

    A finding that is stated both ways, or unclear elsewhere, is neither. No kind of mass is absent where another kind
    is mentioned otherwise, and abnormality is absent only where nothing is present.
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
            # A question mark belongs to its sentence: it makes all of it doubtful.
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
    """The mention at a match.

    Args:
        text: the caption.
        clause: its bounds.
        free: from the end of the finding before to the start of the finding after.
        match: the finding's words.
    """
    name = kind_of(match[0]).name
    state, start, end = _state(text, clause, match)
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
    elif phrase:  # several places: which side is meant cannot be told
        sides = {"left", "right"}
    size = sizes[0] if len(sizes) == 1 else None
    return Mention(name, state, start, end, match.span(), frozenset(sides), size, place, _one_line(adjectives))


def _absent(text: str, name: str, span: tuple[int, int], clause_end: int, match: re.Match[str]) -> Mention:
    """A denied finding; unclear where what follows limits the denial to something that is no place."""
    if span[0] == match.start():  # "a fistula is not seen": nothing is left open
        return Mention(name, "absent", *span, match.span())
    cue = next(CUE.finditer(text[span[0] : span[1]]))
    adjectives = _denied(text[span[0] + cue.end() : match.start()]) or ""
    tail = text[match.end() : clause_end]
    link = LINK.match(tail)
    phrase = PLACE_PHRASE.match(tail, link.end()) if link else None
    if phrase and not _rest(tail[phrase.end() :]):
        end = match.end() + phrase.end()
        return Mention(name, "absent", span[0], end, match.span(), place=phrase[0], adjectives=adjectives)
    return Mention(name, "unclear" if _rest(tail) else "absent", *span, match.span(), adjectives=adjectives)


def _one_line(text: str) -> str:
    return " ".join(text.lower().split())


def _premodifiers(text: str, lowest: int, start: int) -> int:
    """Where the adjectives before a finding begin."""
    for word in reversed(list(re.finditer(r"[^\s,/()]+|[,/()]", text[lowest:start]))[-6:]):
        if word[0].lower() in PREMODIFIER_STOP or not word[0][0].isalnum() or VERB.fullmatch(word[0]):
            break
        start = lowest + word.start()
    return start


def _state(text: str, clause: tuple[int, int], match: re.Match[str]) -> tuple[State, int, int]:
    """Present, absent or unclear; for absent, the words from the cue to the finding."""
    before, after = text[clause[0] : match.start()], text[match.end() : clause[1]]
    if LATE_HEDGE.search(after) and not AFTER_CUE.match(after):
        return "unclear", 0, 0
    masked = PSEUDO.sub(lambda found: " " * len(found[0]), before)
    if HEDGE.search(masked):
        return "unclear", 0, 0
    if cue := AFTER_CUE.match(after):
        sure = not LEAD.sub("", before) and not _rest(after[cue.end() :])
        return ("absent" if sure else "unclear"), match.start(), match.end() + cue.end()
    cues = list(CUE.finditer(masked))
    if VAGUE_CUE.search(masked):
        return "unclear", 0, 0
    if not cues:
        return "present", 0, 0
    if not _about_the_image(masked[: cues[0].start()]):
        return "unclear", 0, 0
    adjectives = _denied(masked[cues[-1].end() :])
    return ("unclear" if adjectives is None else "absent"), clause[0] + cues[-1].start(), match.end()


def _denied(between: str) -> str | None:
    """The adjectives of a finding that a cue denies; None where what stands between cue and finding ends the denial.

    `No edema, mass effect or acute hemorrhage` denies all three, the last as acute hemorrhage; `no edema, large mass`
    says nothing sure of the mass.
    """
    *items, own = re.split(r"(,(?:\s*(?:or|nor)\b)?|/|\b(?:or|nor)\b)", PATTERN.sub("x", between.lower()))
    if any(LIMITING.search(each) for each in (*items, own)) or any(len(item.split()) > 4 for item in items):
        return None
    article = re.search(r"\b(?:a|an|the)\b", own) is not None
    words = LINE.sub(" ", own).split()
    listed_by_comma = bool(items) and items[-1] == ","
    if len(words) > 3 or (listed_by_comma and (words or article)) or not all(re.fullmatch("[a-z-]+", w) for w in words):
        return None
    return " ".join(words)


def _rest(tail: str) -> str:
    """What follows a denied finding and may limit it to a place."""
    return TAIL.sub("", PATTERN.sub("", tail))


def _about_the_image(lead: str) -> bool:
    """Whether what stands before a negation speaks of the whole image, and not of one organ or finding in it."""
    if PATTERN.search(lead):
        return False
    verbs = list(VERB.finditer(lead))
    if verbs:
        return not LEAD.sub("", lead[verbs[-1].end() :]) and bool(_names_image(lead))
    return not LEAD.sub("", lead) or _names_image(lead)


def _names_image(text: str) -> bool:
    return bool(values("modality", text) or IMAGE_WORD.search(text))
