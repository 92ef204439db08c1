"""Questions by rule: asks about what a caption and its metadata state, in one of a few wordings.

Nothing is guessed: what the caption leaves open, or where it contradicts its metadata, is not asked.
"""

import random
import re
from collections.abc import Iterator

from tasks.records import Caption
from tasks.store import derived_seed
from tasks.synthesize.drafts import Draft, from_caption, from_metadata
from tasks.synthesize.findings import DEVICES, GENERAL, KINDS
from tasks.synthesize.lexicon import DIMENSIONS, PLACE_PHRASE, exclusive, is_stated, only, values
from tasks.synthesize.statements import Mention, read_mentions, stated

OPEN = {
    "modality": ("What imaging modality is this?", "How was this image taken?"),
    "plane": ("In which plane is this image?", "What imaging plane is shown?"),
    "organ": ("Which part of the body is shown?", "What organ system is imaged?"),
    "finding": ("What abnormality is seen?", "What is the main finding?"),
    "findings": ("Which abnormalities are seen?", "What are the findings?"),
    "finding of a side": ("What is seen on the {side} side?", "What abnormality is on the {side} side?"),
    "side": ("On which side is the {about}?", "Which side shows the {about}?"),
    "location": ("Where is the {about}?", "In which region is the {about} located?"),
    "size": ("What is the size of the {about}?", "Of what size is the {about}?"),
    "sex": ("What is the sex of the patient?", "Is the patient male or female?"),
    "age": ("How old is the patient?", "What is the age of the patient in years?"),
}
CLOSED = {
    "modality": ("Is this {a} {value} image?", "Was this image taken by {value}?"),
    "plane": ("Is this {a} {value} image?", "Is this image in the {value} plane?"),
    "side": ("Is the {about} on the {value} side?", "Is the {about} on the {value}?"),
    "size": ("Is the {about} {value}?", "Does the {about} look {value}?"),
    "presence": ("Is there {value}?", "Does the image show {value}?"),
}
OF_THE = re.compile(r"\b(?:ct|mri|mr|x-ray|radiographs?|ultrasound|scans?|images?|views?)\s+of\s+the\s+", re.IGNORECASE)
MOST_FINDINGS = 3
"""Most findings in one answer; nobody would give a longer one."""


def write_pairs(caption: Caption, seed: int, ask_sex_and_age: bool) -> list[Draft]:
    """All pairs of a caption. Yes/no questions are not balanced yet: most answers are yes."""
    rng = random.Random(derived_seed("synthesize", seed, caption.image_id, caption.text))
    drafts = [*_of_image(caption, rng)]
    if ask_sex_and_age:
        for field in ("sex", "age"):
            if is_stated(value := getattr(caption, field)):
                drafts.append(from_metadata(caption, field, field, rng.choice(OPEN[field]), str(value).strip()))
    # Findings are recognised by English words.
    return [*drafts, *_of_findings(caption, rng)] if caption.language == "en" else drafts


def deny(draft: Draft, rng: random.Random) -> list[Draft]:
    """Make questions with answer no from a pair with answer yes, by other values of a mutually exclusive choice.

    A modality or plane that the caption names anywhere is not denied.
    """
    if draft.topic not in ("modality", "plane", "side", "size"):
        return []
    choices = exclusive(draft.topic)
    truth = only(draft.topic, draft.value)
    if truth not in choices:
        return []
    named = values(draft.topic, draft.caption.text) if draft.topic in ("modality", "plane") else set()
    denied = []
    for value in choices:
        if value != truth and value not in named:
            spelling = value if draft.value == truth else value.lower()
            denied.append(_denial(draft, spelling, rng))
    return denied


def _denial(draft: Draft, value: str, rng: random.Random) -> Draft:
    question = _closed(draft.topic, rng, value, draft.about)
    span = (draft.source, draft.start, draft.end, draft.span)
    return Draft(draft.caption, draft.topic, question, "no", *span, value=value, about=draft.about)


def with_article(words: str) -> str:
    """`a CT`, `an MRI`, `an axial`."""
    # The pronunciation decides.
    return f"an {words}" if words[0].lower() in "aeio" or words.lower().startswith(("mri", "x-ray")) else f"a {words}"


def _closed(topic: str, rng: random.Random, value: str, about: str = "") -> str:
    article = with_article(value).split()[0]
    return rng.choice(CLOSED[topic]).format(value=value, about=about, a=article)


def _of_image(caption: Caption, rng: random.Random) -> Iterator[Draft]:
    for topic, stated_as in (("modality", caption.modality), ("plane", caption.plane)):
        named = values(topic, caption.text)
        truth = only(topic, stated_as)
        if truth and (not named or truth in named):
            # True and false values have the same spelling, or it would reveal the answer.
            spelling = truth.lower() if str(stated_as).strip() == truth.lower() else truth
            yield from_metadata(caption, topic, topic, rng.choice(OPEN[topic]), spelling)
            yield from_metadata(caption, topic, topic, _closed(topic, rng, spelling), "yes", value=spelling)
        elif not is_stated(stated_as) and len(named) == 1:
            (truth,) = named
            match = DIMENSIONS[topic][truth].search(caption.text)
            assert match
            yield from_caption(caption, *match.span(), topic, rng.choice(OPEN[topic]), truth)
            yield from_caption(caption, *match.span(), topic, _closed(topic, rng, truth), "yes", value=truth)
    if caption.organ and is_stated(caption.organ):
        yield from_metadata(caption, "organ", "organ", rng.choice(OPEN["organ"]), caption.organ.strip())
    elif caption.language == "en" and (link := OF_THE.search(caption.text)):
        place = PLACE_PHRASE.match(caption.text, link.end())
        if place and not values("side", place[0]):
            yield from_caption(caption, *place.span(), "organ", rng.choice(OPEN["organ"]), _line(place[0]))


def _of_findings(caption: Caption, rng: random.Random) -> Iterator[Draft]:
    present, absent = stated(read_mentions(caption.text))
    specific = {name: mentions for name, mentions in present.items() if name != GENERAL}
    for name, mentions in specific.items():
        yield from _presence(caption, mentions[0], "yes", rng)
        yield from _details(caption, name, mentions, rng)
    abnormal = [mentions[0] for name, mentions in specific.items() if name not in DEVICES]
    if abnormal:
        span, value = (abnormal[0].start, abnormal[0].end), KINDS[GENERAL].with_article()
        yield from_caption(caption, *span, "presence", _closed("presence", rng, value), "yes", value=GENERAL)
    for mention in absent.values():
        yield from _presence(caption, mention, "no", rng)
    yield from _names(caption, specific, rng)


def _presence(caption: Caption, mention: Mention, answer: str, rng: random.Random) -> Iterator[Draft]:
    """Ask whether a finding is present: with all words of a denial, with a random part of them where it is present."""
    kind = KINDS[mention.name]
    adjectives, place = mention.adjectives, mention.place
    if answer == "yes" and not (
        re.fullmatch(r"[a-z -]+", adjectives) and len(adjectives.split()) < 4 and rng.random() < 0.5
    ):
        adjectives = ""
    if answer == "yes" and rng.random() < 0.5:
        place = None
    words = f"{adjectives} {mention.name}".strip()
    value = (with_article(words) if kind.countable else words) + (f" in the {_line(place)}" if place else "")
    question = _closed("presence", rng, value)
    yield from_caption(caption, mention.start, mention.end, "presence", question, answer, value=mention.name)


def _details(caption: Caption, name: str, mentions: list[Mention], rng: random.Random) -> Iterator[Draft]:
    """Ask for side, place and size of a finding, where all of its mentions that state one agree."""
    sides = {side for mention in mentions for side in mention.sides}
    if len(sides) == 1:
        span = next((each.start, each.end) for each in mentions if each.sides)
        (side,) = sides
        yield from_caption(caption, *span, "side", rng.choice(OPEN["side"]).format(about=name), side, about=name)
        if side != "bilateral":
            question = _closed("side", rng, side, name)
            yield from_caption(caption, *span, "side", question, "yes", value=side, about=name)
    places = {_line(mention.place): mention for mention in mentions if mention.place}
    if len(places) == 1:
        ((place, mention),) = places.items()
        question = rng.choice(OPEN["location"]).format(about=name)
        yield from_caption(caption, mention.start, mention.end, "location", question, place, about=name)
    sizes = {mention.size: mention for mention in mentions if mention.size}
    if len(sizes) == 1:
        ((size, mention),) = sizes.items()
        span, question = (mention.start, mention.end), rng.choice(OPEN["size"]).format(about=name)
        yield from_caption(caption, *span, "size", question, str(size), about=name)
        yield from_caption(
            caption, *span, "size", _closed("size", rng, str(size), name), "yes", value=str(size), about=name
        )


def _names(caption: Caption, present: dict[str, list[Mention]], rng: random.Random) -> Iterator[Draft]:
    """Ask which findings are seen: in the whole image, and on each side where each has one of two findings."""
    first = [mentions[0] for mentions in present.values()]
    if not 1 <= len(first) <= MOST_FINDINGS:
        return
    names = [mention.name for mention in first]
    answer = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    span = (min(mention.start for mention in first), max(mention.end for mention in first))
    wordings = OPEN["findings" if len(names) > 1 else "finding"]
    yield from_caption(caption, *span, "finding", rng.choice(wordings), answer)
    sides = {name: {side for mention in mentions for side in mention.sides} for name, mentions in present.items()}
    if len(names) > 1 and sorted(map(sorted, sides.values())) == [["left"], ["right"]]:
        for name, mentions in present.items():
            question = rng.choice(OPEN["finding of a side"]).format(side=next(iter(sides[name])))
            mention = next(each for each in mentions if each.sides)
            yield from_caption(caption, mention.start, mention.end, "finding", question, name)


def _line(text: str | None) -> str:
    return " ".join((text or "").lower().split())
