"""Python's search for objects that refer to each other in circles, which large libraries make slow."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000
"""New objects between two searches, where Python searches after 700: importing a library makes millions that stay."""


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """While open, nothing is searched: for what makes many objects, none of which can be removed yet."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            gc.enable()


def search_seldom() -> None:
    """Search less often, in a process that imports large libraries."""
    gc.set_threshold(YOUNG, 10, 10)
