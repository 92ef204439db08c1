"""Multiple choice: reads the options as published, and which of them is the answer."""

from collections.abc import Iterable

from tasks.ingest.finding import problem
from tasks.ingest.rows import Row
from tasks.text.options import place_of, unlabelled


def choose(row: Row, published: Iterable[str | None], gold: str) -> tuple[tuple[str, ...], str]:
    """The options in order, each once and without its label, and the option that the gold answer names.

    The gold answer is an option's text, or its letter in the published order, which counts null options. Options that
    differ only in case or in a full stop at the end are merged into the first form; null options are dropped. Raises
    StudyError where the gold answer is no option, or fewer than two options are left.
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
        raise problem(row.where, "the answer among the options", row.quoted(gold), "correct the row")
    return tuple(options.values()), options[_key(unlabelled(given)[place])]


def _key(option: str) -> str:
    return option.casefold().rstrip(". ")
