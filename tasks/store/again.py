"""A request to do finished work again: one stage, or one part of a flow, and all that follows from it.

What follows is found by references: a stage that is given a folder which was done again is done again too, whether or
not its content is the same. The former folder stays until the new one, under the same name, takes its place.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from tasks.store.folders import digest_at, find


@dataclass(frozen=True)
class Again:
    """The request of one flow run."""

    what: str
    """Name of a stage, as `update`, or of a part, as `round 2`."""
    run: str
    """Id of the flow run. The folders that it makes keep it, so that a retry does not make them once more."""
    before: dict[str, str] = field(default_factory=dict)
    """By path, the former digest of each folder that the request covers so far; empty where there was none."""

    def covers(self, path: str, names: Sequence[str], inputs: Sequence[str]) -> bool:
        """Whether the request is for a folder, which is noted.

        Args:
            path: of the folder, relative to the artifacts.
            names: of its stage, and of the part of the flow that asks for it.
            inputs: paths of the folders that it is made from.
        """
        if self.what not in names and self.before.keys().isdisjoint(inputs):
            return False
        self.before.setdefault(path, digest_at(path))
        return True

    def is_done(self, path: str) -> bool:
        """Whether this flow run has made the folder again already."""
        try:
            return find(path).manifest().get("again") == self.run
        except (OSError, ValueError, KeyError):
            return False

    @property
    def same(self) -> int:
        """How many of the folders have the content of before."""
        return sum(digest == digest_at(path) for path, digest in self.before.items())


_asked: ContextVar[Again | None] = ContextVar("asked", default=None)


def asked_again() -> Again | None:
    """The request that holds here, if there is one."""
    return _asked.get()


@contextlib.contextmanager
def asking(again: Again | None) -> Iterator[None]:
    """Let a request hold for all stages that are called within this context."""
    token = _asked.set(again)
    try:
        yield
    finally:
        _asked.reset(token)
