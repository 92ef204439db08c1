"""The Prefect server that a command records in: the one it is told of, or one of its own that ends with it."""

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
from pathlib import Path
from typing import IO

from tasks.errors import StudyError

HOST = "127.0.0.1"
STARTS_WITHIN_S = 120
"""How long a server of the command's own may take to start: some 8 s, more on a busy machine."""
ANSWERS_WITHIN_S = 5


def use_prefect_server() -> None:
    """Give the flows of this process a Prefect server to record in.

    That is the one of Prefect's setting `PREFECT_API_URL`. Where it names none, a server of the command's own is
    started, which ends with the process. It has a session of its own, so that Ctrl-C does not reach it: a run that is
    interrupted can still be recorded.

    Raises StudyError where the named server does not answer, or none can be started.
    """
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a home that cannot be made: told below
        from prefect.context import refresh_global_settings_context
        from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        _check_answers(settings.api.url)
        return
    _check_writable(settings.home)
    os.environ["PREFECT_API_URL"] = _start_server()
    refresh_global_settings_context()


def _check_answers(url: str) -> None:
    """Raise StudyError where no Prefect server answers at a URL."""
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
    """Raise StudyError where Prefect could not keep its database."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise StudyError(
            f"Expected a folder that can be written for Prefect's database, found {home} ({error.strerror}): set "
            "PREFECT_HOME to another."
        ) from None


def _start_server() -> str:
    """A new server's URL, once it answers. Raises StudyError, with its last line, where it does not start."""
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(port)],
            stdin=subprocess.PIPE,  # its end tells the server that this process is gone, in whatever way
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        atexit.register(_stop, process)  # once all that waits to be recorded has been sent
        _await_answer(process, port, log)
    return f"http://{HOST}:{port}/api"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def _await_answer(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    import httpx

    end = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://{HOST}:{port}/api/health", timeout=ANSWERS_WITHIN_S).is_success:
                return
        time.sleep(0.1)
    log.seek(0)
    raise StudyError(
        f"Expected Prefect's server to start within {STARTS_WITHIN_S} s, found that it did not "
        f"({_reason(log.read().decode(errors='replace'))}): run `prefect server start` to see more."
    )


def _reason(log: str) -> str:
    """Of what a server said before it ended, the last exception's message."""
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
    """Serve until told to stop, or until whoever started this is gone."""
    import uvicorn

    threading.Thread(target=_stop_with_parent, daemon=True).start()
    os.environ |= {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    application = "prefect.server.api.server:create_app"
    uvicorn.run(application, factory=True, host=HOST, port=port, log_level="error", lifespan="on")


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written there: this returns once the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
