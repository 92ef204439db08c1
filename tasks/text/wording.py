"""Numbers with their nouns, as people write them."""

import re


def counted(number: int, nouns: str) -> str:
    """A number with its noun: `counted(1, "test cases")` is `1 test case`.

    `nouns` is plural; its first word that ends in `s` is the counted noun, whatever follows it.
    """
    return f"{number} {nouns if number != 1 else re.sub(_PLURAL, _singular, nouns, count=1)}"


_PLURAL = r"\b[\w-]*[a-z]s\b"


def _singular(found: re.Match[str]) -> str:
    word = found[0]
    if word == "series":
        return word
    return f"{word[:-3]}y" if word.endswith("ies") else word[:-1]
