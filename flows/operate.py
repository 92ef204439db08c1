"""A Prefect server and a worker on loopback, with the deployments of prefect.yaml: `make serve`.

    python -m flows.operate [PORT]

It goes on until Ctrl-C, and then stops both. Started again it finds everything as it was: the server's database is
kept, deployments and the work pool are updated. Server, worker and deployments are Prefect's own commands.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.errors import StudyError

HOST = "127.0.0.1"
PORT = 4200
POOL = "local"
NOTIFY = "FED_RAG_NOTIFY"
"""The environment variable with the address of notifications (`flows/notifications.py`)."""
ANSWERS_WITHIN_S = 300
"""The first start makes the database, which takes a minute on a slow machine."""
STOPS_WITHIN_S = 30


def operate(port: int = PORT) -> None:
    """Start server and worker, deploy, and wait until Ctrl-C or the end of one of them.

    Raises StudyError if the port is taken, or if a part does not start or ends by itself.
    """
    refuse_taken(port)
    notify = os.environ.pop(NOTIFY, None)  # an address with a password, say, which neither server nor worker need
    if notify:
        refuse_unusable(notify)
    url = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_API_URL"] = url  # for all that is started from here
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    with ExitStack() as running:
        server = running.enter_context(started("server", "start", "--host", HOST, "--port", str(port)))
        await_answer(url, server)
        once("work-pool", "create", POOL, "--type", "process", "--overwrite")
        once("--no-prompt", "deploy", "--all", given={NOTIFY: notify} if notify else {})
        worker = running.enter_context(started("worker", "start", "--pool", POOL, "--type", "process"))
        print(f"Dashboard: http://{HOST}:{port}. Ctrl-C stops server and worker.", flush=True)
        print("A run now: prefect deployment run fed-rag/nightly", flush=True)
        while server.poll() is None and worker.poll() is None:
            time.sleep(0.5)
        gone = "server" if server.poll() is not None else "worker"
        raise StudyError(
            f"Expected server and worker to go on, found that the {gone} has ended: see what it said above."
        )


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect command that goes on beside this process, in a session of its own; stopped on exit."""
    process = subprocess.Popen([prefect(), *words], start_new_session=True)  # Ctrl-C reaches it by us, in our order
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end as Ctrl-C does, which lets it finish what it writes; end it where it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def once(*words: str, given: Mapping[str, str] = {}) -> None:
    """Run a Prefect command to its end, with `given` in its environment beside what this process has.

    Raises StudyError with its last line if it fails.
    """
    done = subprocess.run([prefect(), *words], capture_output=True, text=True, env={**os.environ, **given})
    if done.returncode:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        raise StudyError(f"Expected `prefect {' '.join(words)}` to work, found: {''.join(last).strip()}")


def await_answer(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers. Raises StudyError if it ends before, or does not answer in time."""
    import httpx

    end = time.monotonic() + ANSWERS_WITHIN_S
    with httpx.Client(verify=False, timeout=5) as client:  # it is on this machine
        while server.poll() is None and time.monotonic() < end:
            try:
                if client.get(f"{url}/health").is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.3)
    raise StudyError(
        f"Expected a Prefect server at {url} within {ANSWERS_WITHIN_S} s, found none: see what it said above."
    )


def refuse_unusable(address: str) -> None:
    """Raise StudyError, before anything starts, if notifications cannot be sent to an address."""
    from flows.notifications import wanted  # loads Prefect, which this process needs for nothing else

    wanted(address)


def refuse_taken(port: int) -> None:
    """Raise StudyError if something listens at the port already."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise StudyError(
                f"Expected port {port} of {HOST} to be free, found it taken, perhaps by another `make serve`: stop "
                "that, or use `make serve PORT=...`."
            ) from None


def prefect() -> str:
    """The command that is installed beside this Python."""
    return str(Path(sys.executable).with_name("prefect"))


def _as_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def main(words: Sequence[str]) -> int:
    """Operate until Ctrl-C; an error is one sentence."""
    try:
        operate(int(words[0]) if words else PORT)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
