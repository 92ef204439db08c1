"""Numbers with their nouns."""

import pytest

from tasks.text.wording import counted


@pytest.mark.parametrize(
    ("number", "nouns", "written"),
    [
        (0, "hospitals", "0 hospitals"),
        (1, "hospitals", "1 hospital"),
        (2, "hospitals", "2 hospitals"),
        (1, "test cases that share an image", "1 test case that share an image"),
        (1, "closed questions", "1 closed question"),
        (1, "entries", "1 entry"),
        (1, "series", "1 series"),
    ],
)
def test_one_thing_is_in_the_singular(number: int, nouns: str, written: str) -> None:
    assert counted(number, nouns) == written
