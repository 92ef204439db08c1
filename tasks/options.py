"""Multiple choice: how the options are put to a model, and which of them its reply names."""

import re
import string
import unicodedata
from collections.abc import Sequence

LETTERED = re.compile(
    r"\s*(?:option\s+|answer\s*:?\s*)?\(?(?P<letter>[A-Za-z])(?:[).:]+(?P<rest>.*)|\s*)$", re.IGNORECASE | re.DOTALL
)
"""A reply that is a letter, or begins with one as `B. MRI` does; without a mark behind it, `A` may be an article."""


def lettered(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, each behind its letter."""
    lines = [f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, distinct(options), strict=False)]
    return "\n".join([question.strip(), *lines, "Answer with one of these."])


def distinct(options: Sequence[str]) -> list[str]:
    """The options in their order, tidied, each meaning once."""
    found: dict[str, str] = {}
    for option in options:
        if option.strip():
            found.setdefault(_plain(tidy(option)), tidy(option))
    return list(found.values())


def tidy(answer: str) -> str:
    """An option's text as an answer: no label, no full stop at the end, one space between words, no shouting."""
    text = " ".join(answer.split())
    text = re.sub(r"^\(?[A-F][):]\s*(?=\S)|^[A-F]\.\s+(?=\S)", "", text)
    if not re.search(r"\.\w\.$", text):  # i.v.
        text = text.rstrip(".") or text
    text = text.strip().strip("\"'").strip() or text
    shouted = text.isupper() and any(len(word) > 5 for word in text.split())
    return text.capitalize() if shouted else text


def option_of(text: str, options: Sequence[str], letters: str = string.ascii_uppercase) -> int | None:
    """Which option a reply names, from 0; None where that is unclear.

    In this order: its text is the option's; it is the option's letter, or begins with it and names no other option
    behind it; it holds the words of one option only. Of options within each other ("CT", "PET/CT") the longer counts.

    Args:
        text: of the reply.
        options: as offered.
        letters: of the options, upper case, one each; there may be more of them.
    """
    plain = [_plain(tidy(option)) for option in options]
    if (reply := _plain(text)) in plain:
        return plain.index(reply)
    match = LETTERED.match(text)
    number = letters.find(match["letter"].upper()) if match else -1
    if match is None or not 0 <= number < len(options):
        held = _held(reply, plain)
        return held.pop() if len(held) == 1 else None
    return number if _held(_plain(match["rest"] or ""), plain) <= {number} else None


def _held(reply: str, plain: Sequence[str]) -> set[int]:
    """The options whose words stand in the reply, less those that only stand there as a part of another."""
    found: set[int] = set()
    for number in sorted(range(len(plain)), key=lambda each: -len(plain[each])):
        pattern = rf"(?<!\S){re.escape(plain[number])}(?!\S)"
        if plain[number] and re.search(pattern, reply):
            found.add(number)
            reply = re.sub(pattern, "|", reply)
    return found


def _plain(text: str) -> str:
    """What options that say the same have in common: case, marks and spaces make no difference."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+|[%+<>=]", text)) or text.strip()
