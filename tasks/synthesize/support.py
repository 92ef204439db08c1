"""Checks whether a pair's answer follows from the words that it cites, for rules and models alike.

The check reads the caption again, without knowing how the pair was made. What it cannot check counts as unsupported.
"""

import re
from collections.abc import Sequence

from tasks.synthesize.drafts import Draft
from tasks.synthesize.findings import DEVICES, GENERAL, PATTERN, names_in
from tasks.synthesize.lexicon import PLACE_PHRASE, exclusive, only, values
from tasks.synthesize.statements import Mention, read_mentions, stated

_FRAME = """
    a an the is are was were there this that image picture scan show shows shown seen see in on of at with any does
    do did have has visible present evidence and or it side which what where patient taken by plane look looks appear
    appears located"""
FRAME = frozenset(_FRAME.split())
"""Words of a question or an answer that state nothing."""
MOST_WORDS = 4
"""Most words of an answer that states a modality or a plane: what more it says is not checked."""


def objection(draft: Draft) -> str | None:
    """Why a pair is not supported; None if it is."""
    if not draft.question.strip() or not draft.answer.strip():
        return "the question or the answer is empty"
    if draft.source == "metadata":
        return _against_metadata(draft)
    if draft.caption.text[draft.start : draft.end] != draft.span or not draft.span.strip():
        return "the span is not in the caption"
    if draft.topic in ("modality", "plane"):
        return _against_values(draft, draft.span)
    mentions = read_mentions(draft.caption.text)
    inside = [mention for mention in mentions if draft.start <= mention.at[0] and mention.at[1] <= draft.end]
    return _against_yes_or_no(draft, mentions, inside) if draft.closed else _against_open(draft, mentions, inside)


def _against_metadata(draft: Draft) -> str | None:
    field, _, value = draft.span.partition("=")
    if value != str(getattr(draft.caption, field, None)):
        return "the metadata say something else"
    if field in ("modality", "plane"):
        return _against_values(draft, value)
    return None if draft.answer == value.strip() else "the answer is not what the metadata say"


def _against_values(draft: Draft, truth_text: str) -> str | None:
    """Check modality and plane: the value in the question or answer must agree with the span."""
    truth = values(draft.topic, truth_text)
    claimed = values(draft.topic, draft.question if draft.closed else draft.answer)
    if len(truth) != 1 or len(claimed) != 1:
        return f"the {draft.topic} cannot be told"
    if len(draft.answer.split()) > MOST_WORDS:
        return f"the answer says more than the {draft.topic}"
    if draft.source == "caption" and truth != _of_image(draft):
        return f"the image's own {draft.topic} is another or not certain"
    if draft.answer.lower() != "no":
        return None if claimed == truth else f"the span states another {draft.topic}"
    choices = exclusive(draft.topic)
    apart = truth != claimed and (truth | claimed) <= set(choices)
    if apart and claimed.isdisjoint(values(draft.topic, draft.caption.text)):
        return None
    return f"the span does not exclude this {draft.topic}"


def _of_image(draft: Draft) -> set[str]:
    """The modality or plane by the metadata, or else all that the caption names: it may speak of other images too."""
    told = only(draft.topic, getattr(draft.caption, draft.topic))
    return {told} if told else values(draft.topic, draft.caption.text)


def _against_open(draft: Draft, mentions: Sequence[Mention], inside: Sequence[Mention]) -> str | None:
    present, _ = stated(mentions)
    there = {mention.name for mention in inside if mention.state == "present" and mention.name in present}
    claimed = names_in(draft.answer)
    if not claimed <= there:
        return "the span does not state this finding"
    named = names_in(draft.question) - {GENERAL}
    if not named <= there:
        return "the span does not state what is asked about"
    if draft.topic == "finding" and not claimed:
        return "the answer names no finding"
    if draft.topic in ("side", "size", "location") and not named:
        return "the question names no finding"
    places = " ".join(match[0] for match in PLACE_PHRASE.finditer(draft.question))
    if draft.topic == "finding" and not _words(places) <= _words(draft.span):
        return "the span does not state the place asked about"
    missing = _words(PATTERN.sub(" ", draft.answer)) - _words(draft.span)
    if missing:
        return f"the span lacks {min(missing)!r}"
    if inside and all(mention.state != "present" for mention in inside):
        return "the span is denied or unclear"
    return _against_place(draft, [mention for mention in inside if mention.name in named])


def _against_place(draft: Draft, about: Sequence[Mention]) -> str | None:
    """Check that side, size and place are those of the finding in the question."""
    answer = draft.answer.lower()
    sides = {side for mention in about for side in mention.sides}
    if draft.topic == "side" and not (sides and sides == values("side", answer)):
        return "the finding's side is another or not stated"
    if draft.topic == "size" and answer not in {mention.size for mention in about}:
        return "the finding's size is another or not stated"
    places = {" ".join(mention.place.lower().split()) for mention in about if mention.place}
    if draft.topic == "location" and answer not in places:
        return "the finding's place is another or not stated"
    return None


def _against_yes_or_no(draft: Draft, mentions: Sequence[Mention], inside: Sequence[Mention]) -> str | None:
    present, absent = stated(mentions)
    named = names_in(draft.question)
    if len(named) != 1:
        return "a yes/no question must name one finding"
    (name,) = named
    if draft.topic in ("side", "size"):
        about = [mention for mention in inside if mention.name == name and name in present]
        return _against_choice(draft, about)
    words = _words(PATTERN.sub(" ", draft.question))
    if draft.answer.lower() == "yes":
        general = (
            {each.name for each in inside if each.state == "present" and each.name in present} - DEVICES - {GENERAL}
        )
        there = (
            bool(general) if name == GENERAL else any(mention.name == name for mention in inside) and name in present
        )
        return None if there and words <= _words(draft.span) else "the span does not state this"
    denial = absent.get(name)
    if denial is None or denial not in inside:
        return "the span does not deny this"
    # Without an adjective or a place of the denial, the question would deny more than the caption does.
    said = _words(f"{denial.adjectives} {denial.place or ''}")
    return None if words == said else "the span denies something else"


def _against_choice(draft: Draft, about: Sequence[Mention]) -> str | None:
    claimed = values(draft.topic, draft.question)
    truth = {side for mention in about for side in mention.sides}
    if draft.topic == "size":
        truth = {mention.size for mention in about if mention.size}
    if len(claimed) != 1 or len(truth) != 1 or not truth <= set(exclusive(draft.topic)):
        return f"the {draft.topic} cannot be told"
    return None if (claimed == truth) == (draft.answer.lower() == "yes") else f"the span states another {draft.topic}"


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z0-9]+(?:\.[0-9]+)?", text.lower()) if word not in FRAME}
