"""Reads a language model's reply; each pair is checked, and refused if the caption does not support it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tasks.records import Caption
from tasks.synthesize.drafts import Draft, from_caption
from tasks.synthesize.findings import GENERAL, names_in
from tasks.synthesize.lexicon import DIMENSIONS, values
from tasks.synthesize.quality import without_filler
from tasks.synthesize.statements import read_mentions
from tasks.synthesize.support import objection

LONGEST = 300
"""Most characters of a question or an answer; longer ones are refused."""
LINE = re.compile(r"(?P<question>[^?]+\?)(?P<answer>.*\w.*)")
"""`topic: question? answer`; a number, a mark or a topic before either of the two is passed over."""
LEAD = re.compile(r"[\W\d_]*(?:\w+\s*:\s*)*")
NO_PAIR = "no question with an answer"
UNSUPPORTED = "the answer is not supported"
TOPICS = (
    ("modality", r"modality|imaging technique|type of (?:image|imaging|scan)|how was|taken by"),
    ("plane", r"\bplane\b|orientation|\b(?:axial|coronal|sagittal) (?:image|view|slice)"),
    ("side", r"which side|on the (?:left|right)(?: side)?\?|\bside\b"),
    ("location", r"\bwhere\b|located|location|which (?:region|part|area|lobe)"),
    ("size", r"how (?:large|big)|\bsize\b"),
)


def parse_reply(text: str, caption: Caption) -> tuple[list[Draft], list[str]]:
    """Parse the pairs of a model's reply; also return why others were refused, as `reason: what was found`.

    A line is refused where it is no question with an answer, or where the caption does not support the answer. Never
    raises, whatever the model wrote.
    """
    drafts, refused = list[Draft](), list[str]()
    for line in filter(str.strip, text.splitlines()):
        match = LINE.fullmatch(line.strip())
        draft = _draft(match["question"], match["answer"], caption) if match else NO_PAIR
        if isinstance(draft, str):
            refused.append(_refusal(draft, line))
        else:
            drafts.append(draft)
    return drafts, refused if drafts or refused else [_refusal(NO_PAIR, text)]


def _draft(question: str, answer: str, caption: Caption) -> Draft | str:
    """The pair with the words of the caption that support it, or the reason for refusing it."""
    question, answer = (" ".join(LEAD.sub("", part, count=1).split()) for part in (question, answer))
    if not re.search(r"\w", question) or not answer:
        return NO_PAIR
    if max(len(question), len(answer)) > LONGEST:
        return "the question or the answer is too long"
    # Filler is removed later and must not affect the check of the answer.
    bare = without_filler(answer).rstrip(".")
    answer = bare.lower() if bare.lower() in ("yes", "no") else answer.rstrip(".")
    topic = _topic(question, answer)
    names = sorted(names_in(question))
    value = next(iter(sorted(values(topic, question))), "") if topic in DIMENSIONS else ""
    about = names[0] if names else ""
    reason = "it names nothing that the caption states"
    for place in _places(caption, topic, f"{question} {answer}"):
        draft = from_caption(caption, *place, topic, question, answer, value=value or about, about=about)
        found = objection(replace(draft, question=without_filler(question), answer=bare))
        if not found:
            return draft
        reason = found
    return f"{UNSUPPORTED}: {reason}"


def _places(caption: Caption, topic: str, pair: str) -> Iterator[tuple[int, int]]:
    """Start and end of the words of a caption that may support a pair: as few as the rules would cite."""
    if topic in ("modality", "plane"):
        found = (pattern.search(caption.text) for pattern in DIMENSIONS[topic].values())
        yield from (match.span() for match in found if match)
        return
    names = names_in(pair)
    mentions = [m for m in read_mentions(caption.text) if m.name in names or names == {GENERAL}]
    yield from ((mention.start, mention.end) for mention in mentions)
    if topic == "finding" and mentions:  # an answer may name several findings
        yield min(mention.start for mention in mentions), max(mention.end for mention in mentions)


def _topic(question: str, answer: str) -> str:
    for topic, pattern in TOPICS:
        if re.search(pattern, question, re.IGNORECASE):
            return topic
    return "presence" if answer in ("yes", "no") else "finding"


def _refusal(reason: str, found: Any) -> str:
    text = " ".join(str(found).split())
    return f"{reason}: found {text[:120]!r}"
