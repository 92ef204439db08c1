"""Heartbeats of flow runs, without the wait at the end of each.

While a flow runs, a thread of Prefect's says so every `heartbeat_frequency` seconds. It sleeps a second at a time, and
at the flow's end Prefect 3.9 waits until it wakes: half a second for each part of a study on average. The thread ends
by itself then, and it is a daemon; the engine of asynchronous flows does not wait for it either.
"""

import contextlib
from typing import Any

from prefect import flow_engine

_with_wait = flow_engine._send_heartbeats


def _without_wait(engine: Any, join_on_exit: bool = True) -> contextlib.AbstractContextManager[None]:
    """As Prefect's own, which `join_on_exit` tells whether to wait."""
    return _with_wait(engine, join_on_exit=False)


def end_without_waiting() -> None:
    """Let flows of this process end without waiting for the thread of their heartbeats."""
    prefects: Any = flow_engine
    prefects._send_heartbeats = _without_wait
