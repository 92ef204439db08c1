"""Measures the known faults of published synthetic sets; repairs them where possible, else drops the pair.

The faults are those of the sets published with "Adapting Lightweight Vision Language Models for Radiological Visual
Question Answering": filler around the answer, questions that reveal their answer, four times as many yes as no,
repeated questions, and answers that the caption does not support.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tasks.store import derived_seed
from tasks.synthesize.drafts import Draft
from tasks.synthesize.rules import deny
from tasks.synthesize.support import objection

GIVEAWAY = 0.5
"""Least share of an answer's long words in the question at which the answer counts as given away."""
LONG = 4
"""Least number of letters of a long word."""
PICTURE = r"(?:image|picture|figure|scan|photo|caption|text|description)"
FILLERS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"^(?:in|according to|based on|looking at|from)\s+(?:the|this)\s+(?:given\s+|provided\s+)?{PICTURE}\s*[,:]\s*",
        rf"^(?:the|this)\s+{PICTURE}\s+(?:clearly\s+)?(?:shows?|depicts?|demonstrates?|reveals?|displays?)\s+(?:that\s+)?",
        rf"^this\s+is\s+an?\s+{PICTURE}\s+(?:of|showing)\s+",
        r"^fig(?:ure|\.)?\s*\d*[a-z]?\s*(?:shows?|depicts?|demonstrates?)\s+",
        r"^(?:here\s+(?:is|are)|sure|the\s+answer\s+is|answer)\b[^:?]{0,60}:\s*",
        rf",?\s*(?:as\s+)?(?:seen|shown|depicted|visible|described|mentioned|stated)\s+(?:in|on|by)\s+(?:the|this)\s+"
        rf"(?:given\s+|provided\s+)?{PICTURE}",
    )
)


def without_filler(text: str) -> str:
    """Remove filler phrases from a text; a capital at the beginning stays."""
    bare = text.strip()
    for pattern in FILLERS:
        bare = pattern.sub("", bare).strip(" ,;:")
    if bare == text.strip() or not bare:
        return text
    return bare[0].upper() + bare[1:] if text.strip()[0].isupper() else bare


def given_away(question: str, answer: str) -> float:
    """The share of an answer's long words (at least four letters) that its question contains; 0 without long words."""
    long = {word for word in re.findall(r"[a-z]+", answer.lower()) if len(word) >= LONG}
    return len(long & set(re.findall(r"[a-z]+", question.lower()))) / len(long) if long else 0.0


def measure(drafts: Sequence[Draft], known: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """Count the pairs with each fault, and the balance of yes and no.

    Args:
        drafts: the pairs.
        known: image and question of existing pairs.
    """
    yes = sum(draft.answer.lower() == "yes" for draft in drafts)
    closed = [draft for draft in drafts if draft.closed]
    faults = {
        "filler": sum(_has_filler(draft) for draft in drafts),
        "giveaway": sum(given_away(draft.question, draft.answer) >= GIVEAWAY for draft in drafts),
        "duplicate": len(drafts) - len(_first_of_each(drafts, known)),
        "unsupported": sum(objection(draft) is not None for draft in drafts),
    }
    return {
        "pairs": len(drafts),
        "faults": {name: {"pairs": count, "share": _share(count, len(drafts))} for name, count in faults.items()},
        "yes_no": {"pairs": len(closed), "yes": yes, "yes_share": _share(yes, len(closed)), "guess": _guess(closed)},
        "topics": {topic: dict(sorted(each.items())) for topic, each in sorted(_by_topic(drafts).items())},
    }


def mend(
    drafts: Sequence[Draft], seed: int, known: Iterable[tuple[str, str]] = ()
) -> tuple[list[Draft], dict[str, int]]:
    """Remove faults; returns the pairs, and counts of what was done.

    Filler is removed. Pairs that are unsupported, given away or repeated are dropped. Yes and no are balanced.
    """
    done: Counter[str] = Counter()
    bare = [replace(d, question=without_filler(d.question), answer=without_filler(d.answer)) for d in drafts]
    done["filler cut out"] = sum(map(_has_filler, drafts))
    kept = []
    for draft in bare:
        if objection(draft):
            done["dropped as unsupported"] += 1
        elif given_away(draft.question, draft.answer) >= GIVEAWAY:
            done["dropped as given away"] += 1
        else:
            kept.append(draft)
    unique = _first_of_each(kept, known)
    done["dropped as duplicate"] = len(kept) - len(unique)
    even = _balanced(unique, seed, set(known), done)
    return even, {what: done[what] for what in sorted(done)}


def _balanced(drafts: list[Draft], seed: int, known: set[tuple[str, str]], done: Counter[str]) -> list[Draft]:
    """Balance yes and no in each topic of each split.

    First, supported negatives are added, of values with more yes than no; then the surplus is dropped, last where the
    other answer has a question about the same value.
    """
    groups: dict[tuple[str, str], list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.closed:
            groups[draft.caption.split, draft.topic].append(draft)
    taken = known | {_key(draft) for draft in drafts}
    kept = [draft for draft in drafts if not draft.closed]
    for (split, topic), group in sorted(groups.items()):
        rng = random.Random(derived_seed("balance", seed, split, topic))
        added = _negatives(group, taken, rng)
        even = _without_surplus([*group, *added], rng)
        stayed = {id(draft) for draft in even}
        done["negatives added"] += sum(id(draft) in stayed for draft in added)
        done["dropped for balance"] += sum(id(draft) not in stayed for draft in group)
        kept += even
    place = {image: number for number, image in enumerate(dict.fromkeys(draft.caption.image_id for draft in drafts))}
    return sorted(kept, key=lambda draft: place[draft.caption.image_id])


def _negatives(group: list[Draft], taken: set[tuple[str, str]], rng: random.Random) -> list[Draft]:
    """As many supported negatives as are missing in the group, at most one from each pair with answer yes."""
    sources = [draft for draft in group if draft.answer == "yes"]
    lacking = 2 * len(sources) - len(group)
    surplus = Counter(draft.value.lower() for draft in sources)
    surplus.subtract(draft.value.lower() for draft in group if draft.answer == "no")
    added: list[Draft] = []
    for draft in rng.sample(sources, len(sources)):
        choices = [no for no in deny(draft, rng) if _key(no) not in taken and objection(no) is None]
        if len(added) < lacking and choices:
            chosen = max(choices, key=lambda no: surplus[no.value.lower()])
            surplus[chosen.value.lower()] -= 1
            taken.add(_key(chosen))
            added.append(chosen)
    return added


def _without_surplus(group: list[Draft], rng: random.Random) -> list[Draft]:
    sides = [[draft for draft in group if draft.answer == answer] for answer in ("yes", "no")]
    few, many = sorted(sides, key=len)
    wanted = Counter(draft.value for draft in few)
    matching: list[Draft] = []
    others: list[Draft] = []
    for draft in rng.sample(many, len(many)):
        matched = wanted[draft.value] > 0
        wanted[draft.value] -= matched
        (matching if matched else others).append(draft)
    kept = {id(draft) for draft in (*few, *[*matching, *others][: len(few)])}
    return [draft for draft in group if id(draft) in kept]


def _has_filler(draft: Draft) -> bool:
    return without_filler(draft.question) != draft.question or without_filler(draft.answer) != draft.answer


def _key(draft: Draft) -> tuple[str, str]:
    return key(draft.caption.image_id, draft.question)


def key(image_id: str, question: str) -> tuple[str, str]:
    """The key of a question: pairs with the same image and the same words are one question."""
    return image_id, " ".join(re.findall(r"\w+", question.lower()))


def _first_of_each(drafts: Sequence[Draft], known: Iterable[tuple[str, str]]) -> list[Draft]:
    seen, kept = set(known), []
    for draft in drafts:
        if _key(draft) not in seen:
            seen.add(_key(draft))
            kept.append(draft)
    return kept


def _by_topic(drafts: Sequence[Draft]) -> dict[str, Counter[str]]:
    topics: dict[str, Counter[str]] = defaultdict(Counter)
    for draft in drafts:
        topics[draft.topic][draft.answer.lower() if draft.closed else "open"] += 1
    return topics


def _guess(closed: Sequence[Draft]) -> float | None:
    """The share of yes/no questions that the most common answer for the same topic and value gets right, without the
    image."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for draft in closed:
        counts[draft.topic, draft.value.lower()][draft.answer.lower()] += 1
    return _share(sum(max(each.values()) for each in counts.values()), len(closed))


def _share(count: int, of: int) -> float | None:
    return round(count / of, 4) if of else None
