"""Gives memory that passes have freed back to the system.

The tensors of each pass have other sizes than those of the one before, so the C library's allocator keeps more and more
memory that is free but in pieces, and keeps it for each thread that a stage runs in. Training smol-clip, that was more
than half of all that the process took (docs/log.md).
"""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.engine.base import Base

PERIOD = 10.0
"""Seconds between two times within a stage: the system clears memory anew when it is taken again, which takes time."""
PAUSE = 1.0
"""Seconds since the last time, at least, where a stage ends: those that answer a question are short."""


class Freed:
    """When this process gave memory back, and when it does again."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    @contextmanager
    def given_back(self, base: Base) -> Iterator[None]:
        """While open, give freed memory back before passes over the text model, every `PERIOD`, and at the end."""
        text = base.model.model.language_model
        handle = text.register_forward_pre_hook(lambda *_: self._after(PERIOD))
        try:
            yield
        finally:
            handle.remove()
            self._after(PAUSE)

    def _after(self, seconds: float) -> None:
        if time.monotonic() >= self._last + seconds:
            give_back()
            self._last = time.monotonic()


def give_back() -> None:
    """Give all whole pages of freed memory back, of all threads; nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(ctypes.c_size_t(0))
