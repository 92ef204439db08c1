"""Flows send heartbeats while they run, stop soon after, and do not wait for it."""

import threading
import time
from typing import Any

import pytest
from prefect import flow_engine

from flows import heartbeats, parts  # noqa: F401  (parts of studies end without waiting)

WITHIN_S = 30


class Engine:
    """As Prefect's engine of a flow run, for its heartbeats."""

    heartbeat_seconds = 30
    flow_run = None

    class logger:  # noqa: N801  (as Prefect calls it)
        @staticmethod
        def debug(*told: Any, **more: Any) -> None: ...

    def __init__(self) -> None:
        self.beats: list[threading.Thread] = []

    def _build_heartbeat_event_template(self) -> tuple[dict[str, str], list[Any]]:
        return {}, []

    def _emit_flow_run_heartbeat(self, *about: Any) -> None:
        self.beats.append(threading.current_thread())


def test_a_part_ends_while_its_heartbeats_thread_still_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread, timeout: float | None = None) -> None:
        raise AssertionError("the end of a part waits for a thread")

    engine = Engine()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", refused)
        with flow_engine._send_heartbeats(engine):  # type: ignore[arg-type]
            end = time.monotonic() + WITHIN_S
            while not engine.beats and time.monotonic() < end:
                time.sleep(0.01)
    (thread,) = engine.beats
    thread.join(WITHIN_S)
    assert not thread.is_alive(), "it stops by itself"
    assert len(engine.beats) == 1


def test_it_is_prefects_own_otherwise() -> None:
    assert flow_engine._send_heartbeats is heartbeats._without_wait
    assert heartbeats._with_wait.__module__ == "prefect.flow_engine"
