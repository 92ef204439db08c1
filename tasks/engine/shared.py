"""The one base and the one engine of this process: the only state that outlives a task.

Only one base is in memory, whatever the number of hospitals. Only one task uses it at a time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from tasks.engine.base import Base, load_base
from tasks.engine.cores import Threads
from tasks.engine.engine import Engine
from tasks.engine.freed import Freed
from tasks.engine.identity import check_unchanged
from tasks.settings import LoraSettings, ModelChoice

_lock = threading.RLock()
_base: dict[ModelChoice, Base] = {}
_engine: dict[LoraSettings, Engine] = {}
_threads, _freed = Threads(), Freed()


@contextmanager
def shared_base(model: ModelChoice) -> Iterator[Base]:
    """The chosen base, locked for the caller; loading it drops any other base from memory.

    Raises StudyError if its files have changed since it was chosen.
    """
    with _lock:
        if model not in _base:
            _engine.clear()
            _base.clear()
            _base[model] = _load(model)
        with _freed.given_back(_base[model]):
            yield _base[model]


@contextmanager
def exclusive_base(model: ModelChoice) -> Iterator[Base]:
    """A newly loaded base that the caller may change; no other base is in memory meanwhile."""
    with _lock:
        _engine.clear()
        _base.clear()
        base = _load(model)
        with _freed.given_back(base):
            yield base


def _load(model: ModelChoice) -> Base:
    base = load_base(
        model.name,
        model.revision,
        model.device,
        model.max_pixels,
        model.gradient_checkpointing,
        model.quantisation,
        model.image_tokens,
        model.precision,
    )
    check_unchanged(model)  # after loading, so that no change is missed
    return base


@contextmanager
def shared_engine(model: ModelChoice, lora: LoraSettings) -> Iterator[Engine]:
    """The base with an adapter of these settings, locked for the caller; the last caller's weights are still in it.

    It computes with as many threads as there are cores that other processes leave free, unless results follow the
    number: oneDNN's products in bfloat16 with AMX do, and its gradients of a convolutional tower (torch 2.13).
    """
    with shared_base(model) as base:
        if lora not in _engine:
            for other in _engine.values():
                other.remove()
            _engine.clear()
            _engine[lora] = Engine(
                base, lora.r, lora.alpha, lora.dropout, lora.targets, lora.projector, lora.tower_targets
            )
        any_number = base.model.dtype is torch.float32 and not lora.tower_targets
        with _threads.suited(base) if any_number else nullcontext():
            yield _engine[lora]
