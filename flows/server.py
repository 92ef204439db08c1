"""The Prefect server that a command reports to: the configured one, or a temporary one."""

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
from importlib.metadata import version
from pathlib import Path

from flows.kept import is_open, join, kept_for, place_of, wait_for_commands
from tasks.errors import StudyError

HOST = "127.0.0.1"
STARTS_WITHIN_S = 120
"""Longest time for a temporary server to start; it takes about 8 s, and more on a busy machine."""
ANSWERS_WITHIN_S = 5


def use_prefect_server(meanwhile: Callable[[], object] = lambda: None) -> None:
    """Give the flows of this process a Prefect server to report to.

    This is the server at Prefect's setting `PREFECT_API_URL`. If that is not set, it is the one that an earlier command
    left for this one, or a temporary server is started, which ends with the process or a while later (`flows.kept`). It
    runs in its own session, so that Ctrl-C does not reach it and an interrupted run can still be recorded. It takes
    seconds to start; `meanwhile` is called after it was begun.

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
    place = place_of(settings.home, f"{version('prefect')} {sorted(settings.to_environment_variables().items())}")
    os.environ["PREFECT_API_URL"] = _kept_server(place) or _start_server(place, meanwhile)
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


def _kept_server(place: Path) -> str | None:
    """The URL of a server that an earlier command left, which stays until this process ends; None if there is none."""
    found = join(place)
    if found is None:
        return None
    connection, port = found
    if not _answers(port, lambda: is_open(connection)):
        connection.close()
        return None
    atexit.register(connection.close)  # runs after Prefect has sent all pending records
    return f"http://{HOST}:{port}/api"


def _start_server(place: Path, meanwhile: Callable[[], object]) -> str:
    """Start a server, and return its URL once it answers; later commands find it at `place`.

    Raises StudyError, with its last error, if it does not.
    """
    keep = kept_for()
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(port), str(place), str(keep)],
            stdin=subprocess.PIPE,  # its closing tells the server that this process has ended, however it ended
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        assert process.stdin
        atexit.register(process.stdin.close if keep else lambda: _stop(process))  # after Prefect has sent all records
        meanwhile()
        if not _answers(port, lambda: process.poll() is None):
            _stop(process)
            log.seek(0)
            raise StudyError(
                f"Expected Prefect's server to start within {STARTS_WITHIN_S} s, found that it did not "
                f"({_reason(log.read().decode(errors='replace'))}): run `prefect server start` to see more."
            )
    return f"http://{HOST}:{port}/api"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def _answers(port: int, alive: Callable[[], bool]) -> bool:
    """Whether a server that starts comes to answer."""
    import httpx

    end = time.monotonic() + STARTS_WITHIN_S
    # To trust no certificates takes no time; with its own client, each request would read those of the system.
    with httpx.Client(verify=False, timeout=ANSWERS_WITHIN_S) as client:
        while alive() and time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://{HOST}:{port}/api/health").is_success:
                    return True
            time.sleep(0.1)
    return False


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


def _serve(port: int, place: Path, keep: float) -> None:
    """Serve until stopped, or until no command has needed it for so many seconds."""
    import uvicorn

    threading.Thread(target=_stop_when_unneeded, args=(port, place, keep), daemon=True).start()
    os.environ |= {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    application = "prefect.server.api.server:create_app"
    uvicorn.run(application, factory=True, host=HOST, port=port, log_level="error", lifespan="on")


def _stop_when_unneeded(port: int, place: Path, keep: float) -> None:
    wait_for_commands(sys.stdin.fileno(), place, port, keep)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
