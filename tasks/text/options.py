"""Multiple choice: how a model sees the options, and which option a reference or a reply names."""

import re
import string
import unicodedata
from collections.abc import Sequence

from tasks.text.meaning import meaning
from tasks.text.named import named

LETTERS = string.ascii_uppercase
LABEL = r"\s*[(\[]?{}\s*[)\].:、]\s*"
LETTER_ALONE = re.compile(r"\W*(?:option|choice|answer|选项|答案)?\W*([A-Z])\W*", re.IGNORECASE)


def lettered(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, each after its letter."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, distinct(options), strict=False)]
    return "\n".join([question.strip(), *lines, "Answer with one of these."])


def distinct(options: Sequence[str]) -> list[str]:
    """The options in order, without labels, tidied, and each meaning once."""
    found: dict[str, str] = {}
    for option in unlabelled(options):
        if option.strip():
            found.setdefault(meaning(tidy(option)), tidy(option))
    return list(found.values())


def unlabelled(options: Sequence[str], letters: str = LETTERS) -> list[str]:
    """Remove the labels of options, such as `A. CT`, `B. MRI`, if each option has the letter of its place.

    If one has not, nothing is removed: `C. albicans` and `E. coli` are names.

    Args:
        options: in order; blank ones count as places and need no label.
        letters: of the places, upper case.
    """
    texts = [unicodedata.normalize("NFKC", option) for option in options]
    places = [place for place, text in enumerate(texts) if text.strip()]
    if len(places) < 2 or places[-1] >= len(letters):
        return list(options)
    labels = {place: re.match(LABEL.format(letters[place]), texts[place], re.IGNORECASE) for place in places}
    if not all(labels.values()):
        return list(options)
    bare = [texts[place][label.end() :] if (label := labels.get(place)) else text for place, text in enumerate(options)]
    return bare if sum(bool(text.strip()) for text in bare) > 1 else list(options)


def tidy(answer: str) -> str:
    """Tidy an option's text as an answer: no full stop at the end, single spaces, no text in capitals."""
    text = " ".join(answer.split())
    if not re.search(r"\.\w\.$", text):  # i.v.
        text = text.rstrip(".") or text
    text = text.strip().strip("\"'").strip() or text
    shouted = text.isupper() and any(len(word) > 5 for word in text.split())
    return text.capitalize() if shouted else text


def place_of(reference: str, options: Sequence[str], letters: str = LETTERS) -> int | None:
    """The index of the option that a reference is, from 0, among the options as published; None where it is none.

    The reference is an option's text as written, a text with the same meaning, or its letter, with or without its text.

    Args:
        reference: as published.
        options: as published, with blank ones and repetitions, since letters count these too.
        letters: of the places, upper case.
    """
    texts = unlabelled(options, letters)
    if reference in options and texts[options.index(reference)].strip():
        return options.index(reference)
    said = [meaning(tidy(text)) if text.strip() else None for text in texts]
    if (gold := meaning(tidy(reference))) and gold in said:
        return said.index(gold)
    plain = unicodedata.normalize("NFKC", reference)
    for place, letter in enumerate(letters[: len(options)]):
        label = re.match(LABEL.format(letter), plain, re.IGNORECASE)
        if label and said[place] and meaning(tidy(plain[label.end() :])) == said[place]:
            return place
    alone = LETTER_ALONE.fullmatch(plain)
    place = letters.find(alone[1].upper()) if alone else -1
    return place if 0 <= place < len(options) and said[place] else None


def option_of(text: str, options: Sequence[str], letters: str = LETTERS) -> int | None:
    """Which option a reply names, from 0; None where that is unclear.

    These are tried in order: the reply means the same as the option; it is the option's letter, begins with it (as a
    whole or in its last line) or chooses it, and names no other option after it; it contains the words of only one
    option. Denied options do not count. Where one option contains another ("CT", "PET/CT"), the longer one counts.

    Args:
        text: the reply.
        options: as offered, without labels.
        letters: of the options, upper case, one each; there may be more of them.
    """
    said = [meaning(tidy(option)) for option in options]
    for answer in (meaning(text), meaning(tidy(text))):
        if answer and answer in said:
            return said.index(answer)
    return named(text, options, letters)
