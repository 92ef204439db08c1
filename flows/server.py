"""The Prefect server that a command reports to: the configured one, or a temporary one that ends with the command."""

import atexit
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tasks.errors import StudyError

HOST = "127.0.0.1"
STARTS_WITHIN_S = 120
"""Longest time for a temporary server to start; it takes about 8 s, and more on a busy machine."""
ANSWERS_WITHIN_S = 5


def use_prefect_server(meanwhile: Callable[[], object] = lambda: None) -> None:
    """Give the flows of this process a Prefect server to report to.

    This is the server at Prefect's setting `PREFECT_API_URL`. If that is not set, a temporary server is started, which
    ends with the process. It runs in its own session, so that Ctrl-C does not reach it and an interrupted run can still
    be recorded. It takes seconds to start; `meanwhile` is called after it was begun.

    Raises StudyError if the configured server does not answer, or none can be started.
    """
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # bad home: reported below
        from prefect.context import refresh_global_settings_context
        from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        _check_answers(settings.api.url)
        return
    _check_writable(settings.home)
    os.environ["PREFECT_API_URL"] = _start_server(meanwhile)
    refresh_global_settings_context()


def _check_answers(url: str) -> None:
    """Raise StudyError if no Prefect server answers at a URL."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True, httpx_settings={"timeout": ANSWERS_WITHIN_S}) as client:
        client.raise_for_api_version_mismatch = lambda: None  # type: ignore[method-assign]
        problem = client.api_healthcheck()
    if problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise StudyError(
            f"Expected a Prefect server at {url} (PREFECT_API_URL), found none that answers ({reason}): start it with "
            "`prefect server start`, or unset PREFECT_API_URL to run without one."
        )


def _check_writable(home: Path) -> None:
    """Raise StudyError if Prefect cannot write its database in this folder."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise StudyError(
            f"Expected a folder that can be written for Prefect's database, found {home} ({error.strerror}): set "
            "PREFECT_HOME to another."
        ) from None


def _start_server(meanwhile: Callable[[], object]) -> str:
    """Start a server, and return its URL once it answers.

    Raises StudyError, with its last error, if it does not.
    """
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(port)],
            stdin=subprocess.PIPE,  # its closing tells the server that this process has ended, however it ended
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        atexit.register(_stop, process)  # runs after Prefect has sent all pending records
        meanwhile()
        _await_answer(process, port, log)
    return f"http://{HOST}:{port}/api"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def _await_answer(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    import httpx

    end = time.monotonic() + STARTS_WITHIN_S
    # To trust no certificates takes no time; with its own client, each request would read those of the system.
    with httpx.Client(verify=False, timeout=ANSWERS_WITHIN_S) as client:
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://{HOST}:{port}/api/health").is_success:
                    return
            time.sleep(0.1)
    log.seek(0)
    raise StudyError(
        f"Expected Prefect's server to start within {STARTS_WITHIN_S} s, found that it did not "
        f"({_reason(log.read().decode(errors='replace'))}): run `prefect server start` to see more."
    )


def _reason(log: str) -> str:
    """The message of the last exception in a server's log."""
    raised = re.findall(r"^[\w.]*(?:Error|Exception): (.+)$", log, flags=re.MULTILINE)
    return raised[-1].strip() if raised else "it said nothing of why"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdin
    process.stdin.close()


def _serve(port: int) -> None:
    """Serve until stopped, or until the parent process ends."""
    import uvicorn

    threading.Thread(target=_stop_with_parent, daemon=True).start()
    os.environ |= {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    application = "prefect.server.api.server:create_app"
    uvicorn.run(application, factory=True, host=HOST, port=port, log_level="error", lifespan="on")


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written to it, so this returns when the other end closes
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
