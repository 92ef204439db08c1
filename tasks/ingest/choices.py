"""Multiple choice: the options as published, and which of them is the answer."""

from collections.abc import Iterable

from tasks.ingest.files import Row, problem


def choose(row: Row, published: Iterable[str | None], gold: str) -> tuple[tuple[str, ...], str]:
    """The options in their order, each once, and the one that the gold answer means.

    Options that differ in case or in a closing full stop only are one, in its first form; null ones are none.
    Raises StudyError where the gold answer is no option, or fewer than two are left.
    """
    options: dict[str, str] = {}
    for option in published:
        if option is not None:
            options.setdefault(_key(option), option)
    if len(options) < 2:
        raise problem(row.where, "at least 2 options", str(len(options)), "complete the row or remove it")
    if _key(gold) not in options:
        raise problem(row.where, "the answer among the options", row.shown(gold), "correct the row")
    return tuple(options.values()), options[_key(gold)]


def _key(option: str) -> str:
    return option.casefold().rstrip(". ")
