"""Checkpoints: what a stage has worked out so far, kept from time to time, so that a killed process loses minutes.

A checkpoint is a folder of the store, `AREA/checkpoint/KEY`, with the key of the folder that its stage is making. So no
other work finds it: the key follows from settings, inputs and code. It is removed once that folder is whole.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from tasks.errors import StudyError
from tasks.settings import EngineSettings
from tasks.store.folders import Folder, find, here, writing
from tasks.store.manifest import MANIFEST

CHECKPOINT = "checkpoint"
"""The name that checkpoints have in place of a stage's."""
ABOUT = "about.json"
"""Whose checkpoint it is, and how long it took to get there."""
Read = TypeVar("Read")
logger = logging.getLogger("fed_rag")
_minutes: ContextVar[float | None] = ContextVar("checkpoint_minutes", default=EngineSettings().checkpoint_minutes)


@contextlib.contextmanager
def checkpoints_every(minutes: float | None) -> Iterator[None]:
    """Let stages called within this context keep a checkpoint so often; none without a number.

    Results do not follow from it, so it is handed on here: what a stage is called with is in its key.
    """
    token = _minutes.set(minutes)
    try:
        yield
    finally:
        _minutes.reset(token)


def checkpoint_minutes() -> float | None:
    """How often stages called here keep a checkpoint."""
    return _minutes.get()


class Checkpoint:
    """Where the state of one long work is kept.

    Args:
        folder: what the work is for, as its stage is making it.
        area: where the checkpoint lies: at the hospital whose cases it follows from, or `source` for public data.
        now: tells the time in seconds.
    """

    def __init__(self, folder: Folder, area: str, now: Callable[[], float] = time.monotonic) -> None:
        self.path = f"{area}/{CHECKPOINT}/{folder.key}"
        self.age = 0.0
        """Seconds since what was loaded was saved."""
        self._folder, self._now, self._every = folder, now, _minutes.get()
        self._began = self._last = now()
        folder.superseded.append(self.path)

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return self._every is not None and self._now() - self._last >= 60 * self._every

    def save(self, write: Callable[[Path], None]) -> None:
        """Replace what is kept by what `write` puts into a folder, atomically.

        Where the disk is full, work goes on without: what it is for may still find room.
        """
        area, stage, key = self.path.rsplit("/", 2)
        seconds = self._folder.earlier_seconds + self._now() - self._began
        try:
            with writing(area, stage, key) as folder:
                write(folder.path)
                folder.write_json(ABOUT, {"key": key, "seconds": round(seconds, 3)})
        except StudyError as error:
            logger.warning("no checkpoint was saved: %s", error)
        self._last = self._now()

    def load(self, title: str, read: Callable[[Path], Read]) -> Read | None:
        """What `read` finds in the folder that was saved last; None if there is none, or no whole one of this work.

        `title` says in the log whose checkpoint is damaged.
        """
        if not here(self.path).exists():
            return None
        try:
            place = find(self.path).verified().folder
            about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
            if about["key"] != self._folder.key:
                raise ValueError("a checkpoint of other work")
            self.age = time.time() - (place / MANIFEST).stat().st_mtime
            found = read(place)
        except (OSError, ValueError, KeyError):
            logger.warning("%s: begins anew, since its checkpoint %s is damaged or of other work", title, self.path)
            return None
        self._folder.earlier_seconds = about["seconds"]
        return found
