"""Decides whether a finding in a clause is present, absent, or unclear.

Negation follows NegEx (Chapman et al. 2001): a cue, a scope that ends with the clause, and phrases that look like a cue
but are none. Unlike NegEx, there is a third outcome: a finding that is hedged, past, or denied only in part ("the left
lung has no mass", "no new lesion") is unclear.
"""

import re
from typing import Literal

from tasks.synthesize.findings import PATTERN
from tasks.synthesize.lexicon import values

State = Literal["present", "absent", "unclear"]

IMAGED = (
    r"(?:on|in|with|by)\s+(?:this|the|these)\s+(?:\w+\s+)?(?:images?|study|scan|slices?|exam|examination|ct|mri|mr)"
    r"|(?:on|by)\s+(?:ct|mri|mr)"
)
PSEUDO = re.compile(
    r"\bno\s+(?:\w+\s+)?(?:change|increase|decrease|growth|progression|interval)\w*|\bnot\s+only\b|\bno\s+doubt\b"
    r"|\bwith(?:out)?\s+(?:and|or)\s+with(?:out)?\b"
    r"|\bwithout\s+(?:(?:iv|intravenous|oral|and|or)\s+)*contrast\b(?!\s+(?:enhancement|extravasation))",
    re.IGNORECASE,
)
CUE = re.compile(
    r"\b(?:no\s+(?:evidence|signs?|indication)\s+(?:of|for)|without(?:\s+evidence\s+of)?|negative\s+for|abs(?:en|cen)ce\s+of"
    r"|free\s+of|lack\s+of|rul(?:es?|ed|ing)\s+out|neither|nor|no)\b",
    re.IGNORECASE,
)
VAGUE_CUE = re.compile(r"\b(?:not|cannot|never)\b|n't\b", re.IGNORECASE)
AFTER_CUE = re.compile(
    r"\s+(?:(?:is|are|was|were)\s+)?(?:not\s+(?:seen|visible|visuali[sz]ed|identified|present|evident|demonstrated"
    r"|appreciated|noted|detected|shown)|absent|excluded|ruled\s+out)\b",
    re.IGNORECASE,
)
LATE_CUE = re.compile(rf"(?:\s+[a-z-]+){{1,3}}{AFTER_CUE.pattern}", re.IGNORECASE)
"""A cue about something other than the finding, such as its tract or another finding."""
HEDGE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|likely|may|might|could|would|can|suspicious|suspected|suspicion|suggest\w*|concern\w*"
    r"|questionable|question of|differential|versus|vs|rule\s+out|exclude|not\s+(?:been\s+)?(?:excluded|ruled\s+out)|if"
    r"|risk|unlikely|mimic\w*|history\s+of|status\s+post|s/p|prior|previous(?:ly)?|resect\w*|removed|removal|treated"
    r"|resolved|resolution|known|rather\s+than|instead\s+of|usually|typically|often|commonly|patients|due\s+to)\b"
    r"|(?<![\w-])post[- ]?(?:op|surgical)\w*",
    re.IGNORECASE,
)
LATE_HEDGE = re.compile(
    r"\b(?:versus|vs|excluded|ruled\s+out|suspected|unlikely|resolved|removed|questionable)\b|\?", re.IGNORECASE
)
LINE = re.compile(
    r"\b(?:a|an|the|any|evidence|signs?|of|visible|evident|identifiable|indication|apparent|obvious|either)\b"
)
"""Words in a denial that do not change what is denied."""
LIMITING = re.compile(
    r"\b(?:new|other|additional|further|more|longer|significant|similar|large|larger|dominant|definite|discre?e?te?|gross"
    r"|in|on|at|to|into|within|with|from|by|along|between|as|for|is|are|was|were|has|have|seen|noted|and|that|which|this"
    r"|these|appear\w*|\w+ing|reliable|clear|such|typical|suspicious|residual|recurrent|only)\b"
)
"""Words that limit a denial to some property of the finding."""
TAIL = re.compile(
    rf"{IMAGED}|\b(?:is|are|was|were|has|have|been|seen|noted|identified|evident|present|visible|visuali[sz]ed|demonstrated"
    r"|detected|appreciated|here|or|nor|no|a|an|any|evidence|of|and)\b|[\s,/.]",
    re.IGNORECASE,
)
NEXT = r",(?:\s*(?:or|nor)\b)?|/|\b(?:or|nor)\b"
"""Between the items of a list."""
LAST_NOUN = re.compile(r"\b\w+ing\s*$")
"""A word like `swelling`, which limits nothing at the end of an item."""
VERB = re.compile(r"\b(?:show\w*|demonstrat\w*|reveal\w*|display\w*|with|read as)\b", re.IGNORECASE)
IMAGE_WORD = re.compile(r"\b(?:images?|slices?|scans?|study|view|figure)\b", re.IGNORECASE)
LEAD = re.compile(r"\b(?:there|is|are|was|were|a|an|the|any|incidentally|otherwise)\b|[\s,:-]", re.IGNORECASE)


def state_of(text: str, clause: tuple[int, int], match: re.Match[str]) -> tuple[State, int, int]:
    """The state of a finding: present, absent or unclear; for absent, also the span from the cue to the finding."""
    before, after = text[clause[0] : match.start()], text[match.end() : clause[1]]
    if (LATE_HEDGE.search(after) or LATE_CUE.match(after)) and not AFTER_CUE.match(after):
        return "unclear", 0, 0
    masked = PSEUDO.sub(lambda found: " " * len(found[0]), before)
    if HEDGE.search(masked):
        return "unclear", 0, 0
    if cue := AFTER_CUE.match(after):
        sure = not LEAD.sub("", before) and not rest(after[cue.end() :])
        return ("absent" if sure else "unclear"), match.start(), match.end() + cue.end()
    cues = list(CUE.finditer(masked))
    if VAGUE_CUE.search(masked):
        return "unclear", 0, 0
    if not cues:
        return "present", 0, 0
    if not _about_the_image(masked[: cues[0].start()]):
        return "unclear", 0, 0
    adjectives = denied(masked[cues[-1].end() :])
    return ("unclear" if adjectives is None else "absent"), clause[0] + cues[-1].start(), match.end()


def denied(between: str) -> str | None:
    """The adjectives of a finding that a cue denies; None where the words between cue and finding end the denial.

    `No edema, mass effect or acute hemorrhage` denies all three, the last as acute hemorrhage; `no edema, large mass`
    says nothing certain about the mass.
    """
    *items, last = re.split(f"({NEXT})", PATTERN.sub("x", between.lower()))
    if any(LIMITING.search(each) for each in (*items, last)) or any(len(item.split()) > 4 for item in items):
        return None
    article = re.search(r"\b(?:a|an|the)\b", last) is not None
    words = LINE.sub(" ", last).split()
    listed_by_comma = bool(items) and items[-1] == ","
    if len(words) > 3 or (listed_by_comma and (words or article)) or not all(re.fullmatch("[a-z-]+", w) for w in words):
        return None
    return " ".join(words)


def rest(tail: str) -> str:
    """The words after a denied finding that may limit the denial; further denied items are no limit."""
    first, *items = re.split(NEXT, PATTERN.sub("", tail.lower()))
    limits = [item for item in items if LIMITING.search(LAST_NOUN.sub("", TAIL.sub(" ", item)))]
    return TAIL.sub("", " ".join([first, *limits]))


def _about_the_image(lead: str) -> bool:
    """Whether the words before a negation are about the whole image, not about one organ or finding."""
    if PATTERN.search(lead):
        return False
    verbs = list(VERB.finditer(lead))
    if verbs:
        return not LEAD.sub("", lead[verbs[-1].end() :]) and bool(_names_image(lead))
    return not LEAD.sub("", lead) or _names_image(lead)


def _names_image(text: str) -> bool:
    return bool(values("modality", text) or IMAGE_WORD.search(text))
