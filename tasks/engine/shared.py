"""The one base and the one engine of this process: the only state that outlives a task.

Whatever the number of hospitals, one base is in memory, and one task at a time uses it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.engine.base import Base, load_base
from tasks.engine.engine import Engine
from tasks.engine.identity import check_unchanged
from tasks.settings import LoraSettings, ModelChoice

_lock = threading.RLock()
_base: dict[ModelChoice, Base] = {}
_engine: dict[LoraSettings, Engine] = {}


@contextmanager
def shared_base(model: ModelChoice) -> Iterator[Base]:
    """The base that was chosen, for the caller alone; another one takes its place in memory.

    Raises StudyError where its files are not those that were chosen.
    """
    with _lock:
        if model not in _base:
            _engine.clear()
            _base.clear()
            _base[model] = _load(model)
        yield _base[model]


@contextmanager
def own_base(model: ModelChoice) -> Iterator[Base]:
    """A base that the caller may change, loaded for it alone; no other is in memory meanwhile."""
    with _lock:
        _engine.clear()
        _base.clear()
        yield _load(model)


def _load(model: ModelChoice) -> Base:
    base = load_base(
        model.name,
        model.revision,
        model.device,
        model.max_pixels,
        model.gradient_checkpointing,
        model.quantisation,
    )
    check_unchanged(model)  # after it was read, so that no change is missed
    return base


@contextmanager
def shared_engine(model: ModelChoice, lora: LoraSettings) -> Iterator[Engine]:
    """The base with an adapter of this shape, for the caller alone; its weights are the last user's."""
    with shared_base(model) as base:
        if lora not in _engine:
            for other in _engine.values():
                other.remove()
            _engine.clear()
            _engine[lora] = Engine(base, lora.r, lora.alpha, lora.dropout, lora.targets, lora.projector)
        yield _engine[lora]
