"""Multiple choice: the options as published, and which of them is the answer."""

from collections.abc import Iterable

from tasks.ingest.finding import problem
from tasks.ingest.rows import Row
from tasks.text.options import place_of, unlabelled


def choose(row: Row, published: Iterable[str | None], gold: str) -> tuple[tuple[str, ...], str]:
    """The options in their order, each once and without its label, and the one that the gold answer means.

    The gold answer is an option's text, or its letter in the order published, null ones counted. Options that differ
    in case or in a closing full stop only are one, in its first form; null ones are none.
    Raises StudyError where the gold answer is no option, or fewer than two are left.
    """
    given = [option or "" for option in published]
    options: dict[str, str] = {}
    for option in unlabelled(given):
        if option.strip():
            options.setdefault(_key(option), option)
    if len(options) < 2:
        raise problem(row.where, "at least 2 options", str(len(options)), "complete the row or remove it")
    place = place_of(gold, given)
    if place is None:
        raise problem(row.where, "the answer among the options", row.shown(gold), "correct the row")
    return tuple(options.values()), options[_key(unlabelled(given)[place])]


def _key(option: str) -> str:
    return option.casefold().rstrip(". ")
