"""Rewrites multiple-choice questions as open questions.

After "A Lightweight Large Vision-language Model for Multimodal Medical Images".
"""

import re
from dataclasses import replace

from tasks.records import Case
from tasks.text.options import place_of, tidy, unlabelled

OPTIONS = r"(?:options?|choices?|alternatives|answers?|possibilities|items|candidates)"
GIVEN = rf"(?:(?:given|listed|provided|possible|available|offered|following|four|three|two)\s+)*{OPTIONS}"
BELOW = r"(?:\s+(?:below|above|given|provided|listed|offered|available|that\s+follow))*"
FROM = r"(?:in|of|from|among|amongst|between|out\s+of|with|given)"
LISTED = re.compile(
    r"(?:\s*\b(?:options?|choices?)\s*:|\s*[(\n]\s*A\s*[).:]|\s+A[).:]\s).*\bB\s*[).:].*$", re.IGNORECASE | re.DOTALL
)
ASIDE = re.compile(rf"\s*[(\[][^()\[\]]*\b(?:select|choose|pick|{OPTIONS})\b[^()\[\]]*[)\]]", re.IGNORECASE)
PHRASE = re.compile(
    rf",?\s*\b{FROM}\s+(?:the|these|those|this)\s+(?:list\s+of\s+)?(?:{GIVEN}{BELOW}|following|list{BELOW})(?=\s*[,.?!:]|\s*$|\s+[a-z])"
    r"|,?\s*\b(?:among|amongst|from|out\s+of)\s+(?:these|those)(?=\s*[,.?!:]|\s*$)"
    r"|,?\s*\blisted\s+below\b",
    re.IGNORECASE,
)
WHICH = r"(?:which|what)(?:\s+ones?)?\s+(?:of|among|amongst|from|out\s+of)\s+"
WHICH_OF = re.compile(
    rf"\b{WHICH}(?:(?:the\s+)?(?:following|below)(?:\s+{OPTIONS})?|the\s+{GIVEN}{BELOW}|these\s+{OPTIONS}|these|those)\b,?",
    re.IGNORECASE,
)
WHAT_DOES = re.compile(
    r"is|are|was|were|can|could|may|might|do|does|did|has|have|will|would|should|best|most|correctly|accurately|shows"
    r"|describes|represents|appears|explains|identifies|depicts|indicates|characteri[sz]es|matches|corresponds"
)
SINGULAR = re.compile(r"\bwhich\s+((?:[\w-]+\s+){0,3}?)(\w{3,}[a-rt-z]s)(\s+(?:is|was|has|does)\b)", re.IGNORECASE)
"""A plural noun that needs the singular once the options are gone, as in `which techniques was used`."""
WHICH_OPTION = re.compile(rf"\bwhich\s+(?:one\s+)?(?:{OPTIONS})\b", re.IGNORECASE)
IMPERATIVE = re.compile(
    r"^(?:please\s+)?(?:select|choose|pick|identify|indicate|mark|determine|find)\s+(?:the\s+)?"
    r"(?:(?:single\s+)?(?:most\s+)?(?:correct|best|right|appropriate|suitable|accurate|proper|likely)\s+)+",
    re.IGNORECASE,
)
PLAIN_IMPERATIVE = re.compile(
    rf"^(?:please\s+)?(?:select|choose|pick)\s+(?:the|an?|one)\s+(?={OPTIONS}\b)", re.IGNORECASE
)
CLAUSE = re.compile(rf"^{OPTIONS}\s+(?:that|which)\s+", re.IGNORECASE)
FOR = re.compile(
    rf"^{OPTIONS}\s*(?:(?:to|for)\s+(?:the|this)\s+(?:following\s+)?question)?\s*[:,.-]\s*(?=\S)", re.IGNORECASE
)
TO = re.compile(rf"^{OPTIONS}\s+to\s+(?=describe|identify|explain|characteri[sz]e|answer)", re.IGNORECASE)
POINTS = re.compile(
    rf"\bfollowing\b|\b(?:these|those)\s*[?.]?$|\b(?:select|choose|pick)\b|\b{OPTIONS}\b(?!\s+of\s+treatment)"
    r"|\bstatements?\b|\b(?:is|are)\s+(?:true|false|correct|incorrect)\b|\b(?:listed|above|below)\s*[?.]?$|\bamong\s+(?:these|those)\b",
    re.IGNORECASE,
)
POINTING_ANSWER = re.compile(
    r"\b(?:all|none|both|neither|any|either)\s+of\s+(?:the\s+)?(?:above|below|these|them|options|choices|following)\b"
    r"|^(?:both\s+)?\(?[A-F]\)?\s*(?:and|or|&|,)\s*\(?[A-F]\)?\.?$|\bnone of the (?:above|options)\b",
    re.IGNORECASE,
)


def points_at_options(text: str) -> bool:
    """Whether a question needs its options to make sense."""
    return POINTS.search(text) is not None


def can_be_open(case: Case) -> bool:
    """Whether a multiple-choice case can do without its options: neither its answer nor its wording refers to them."""
    return not POINTING_ANSWER.search(case.answer) and not points_at_options(reworded(case.question))


def reword(case: Case) -> Case:
    """Rewrite a multiple-choice case as an open question, or a closed one where the answer is yes or no.

    A case without options, or one that needs them, is returned unchanged.
    """
    if not case.options or not can_be_open(case):
        return case
    place = place_of(case.answer, case.options)
    answer = tidy(case.answer if place is None else unlabelled(case.options)[place])
    kind = "closed" if answer.lower() in ("yes", "no") else "open"
    answer = answer.lower() if kind == "closed" else answer
    return replace(case, question=reworded(case.question), answer=answer, kind=kind, options=())  # type: ignore[arg-type]


def reworded(question: str) -> str:
    """Remove references to options from a question; a question without any stays as it is."""
    text = LISTED.sub("", question)
    text = " ".join(ASIDE.sub("", text).split())
    imperative = IMPERATIVE.match(text) or PLAIN_IMPERATIVE.match(text)
    if imperative:
        text = _as_question(text[imperative.end() :])
    text = WHICH_OPTION.sub("what", WHICH_OF.sub(_which, text))
    text = SINGULAR.sub(lambda found: f"which {found[1]}{_singular(found[2])}{found[3]}", PHRASE.sub("", text))
    text = re.sub(r"\s+([,.?!])", r"\1", " ".join(text.split())).strip(" ,;:-")
    if text == " ".join(question.split()) or not text:
        return question if text else question.strip()
    return text[0].upper() + text[1:].rstrip(".") + ("" if text.endswith("?") else "?")


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    return noun[:-2] + "is" if noun.endswith("oses") else noun[:-1]


def _which(match: re.Match[str]) -> str:
    """`which` before a noun, as in `which of the following imaging techniques`, else `what`."""
    following = re.match(r"\s*([a-z'-]+)", match.string[match.end() :], re.IGNORECASE)
    word = following[1].lower() if following else "is"
    return "what" if WHAT_DOES.fullmatch(word) else "which"


def _as_question(rest: str) -> str:
    """The rest of an instruction to select, as a question."""
    if match := CLAUSE.match(rest):
        return "what " + rest[match.end() :]
    if match := FOR.match(rest):
        return rest[match.end() :]
    if match := TO.match(rest):
        verb, _, object_ = rest[match.end() :].partition(" ")
        return f"what {verb}s {object_}" if verb.lower() != "answer" else object_
    return "what is the " + rest
