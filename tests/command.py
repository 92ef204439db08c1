"""The `fed-rag` command in a process of its own, as a user runs it, and a Prefect server for many such processes."""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

COMMAND = Path(sys.executable).with_name("fed-rag")
PREFECT = Path(sys.executable).with_name("prefect")
TOP = Path(__file__).parents[1]
SHELL = (
    "CUDA_VISIBLE_DEVICES", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PYTHONPATH", "SHELL",
    "SSL_CERT_FILE", "TERM", "TMPDIR", "USER",
)  # fmt: skip
GIVEN = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""What every command under test is given beside that: no network, and no threads, by which small models lose."""
RECORDED_EVERY_S = 1
"""How often the server writes down what it has heard of task runs; 5 s by default. Prefect takes whole seconds."""

RECORDED_WITHIN_S = 120
"""How long that may take on a busy machine."""

ANSWERED_WITHIN_S = 120
"""How long a server may take for an answer there."""


def shell() -> dict[str, str]:
    """The environment of a user's shell: without what this process, or the project in it, has set for itself."""
    return {name: os.environ[name] for name in SHELL if name in os.environ} | GIVEN


def empty_database(shared: Path) -> Path:
    """Prefect's database before the first run, made once in a folder that all test processes share.

    To make its tables takes longer than to start a server.
    """
    home = shared / "prefect-home"
    with FileLock(shared / "prefect-home.lock"):
        if not home.exists():
            command = [PREFECT, "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env=shell() | {"PREFECT_HOME": str(home)}, check=True, capture_output=True)
    return home / "prefect.db"


class Server:
    """A Prefect server on loopback. To start one takes longer than many a study here."""

    def __init__(self, home: Path, database: Path, settings: Mapping[str, str] = {}) -> None:
        """With settings of its own, such as another database than SQLite's."""
        shutil.copy(database, home)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = shell() | {"PREFECT_HOME": str(home), "PREFECT_API_URL": self.url}
        often = {"PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": str(RECORDED_EVERY_S)}
        self.settings = often | dict(settings)
        self.home = home
        self.start()

    def start(self) -> None:
        """Also once it was stopped: at the same address, with the same record."""
        self.log = (self.home / "server.log").open("ab")
        command = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, cwd=TOP, env=self.environment | self.settings, stdout=self.log, stderr=self.log
        )

    def wait(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.3)
        raise TimeoutError("the Prefect server did not start")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return json.loads(self._sent(request) or b"null")

    def delete(self, path: str) -> None:
        """Remove what is at a path of the API."""
        self._sent(urllib.request.Request(f"{self.url}/{path}", method="DELETE"))

    def _sent(self, request: urllib.request.Request) -> bytes:
        """Send a request as often as need be; returns its answer."""
        end = time.monotonic() + ANSWERED_WITHIN_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    return bytes(reply.read())
            except TimeoutError:  # where other tests take all cores
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
            except urllib.error.HTTPError as error:
                if error.code != 503 or self.process.poll() is not None:
                    raise
                time.sleep(1)  # its SQLite is busy, and it asks to be asked again

    def begun_runs(self, **wanted: Any) -> list[dict[str, Any]]:
        """The flow runs that have begun, the last first. A deployment's coming runs would count as later still."""
        begun = {"flow_runs": wanted | {"start_time": {"is_null_": False}}, "sort": "START_TIME_DESC"}
        return self.post("flow_runs/filter", begun)

    def newest_run(self) -> dict[str, Any]:
        """The flow run that began last, and is no part of another."""
        return self.begun_runs(parent_task_run_id={"is_null_": True})[0]

    def parts_of(self, flow_run: str) -> list[dict[str, Any]]:
        """The flow runs that are part of one, in the order of their beginning."""
        wanted = {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run]}}, "sort": "START_TIME_ASC"}
        return self.post("flow_runs/filter", wanted)

    def shown_as_running(self, *flow_runs: str) -> list[str]:
        """Names of the task runs of these flow runs that the dashboard shows as running, or as about to run."""
        running = {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
        wanted = {"flow_runs": {"id": {"any_": flow_runs}}, "task_runs": running, "limit": 200}
        return [row["name"] for row in self.post("task_runs/filter", wanted)]

    def await_records(self) -> None:
        """Until the server has written down what it was sent before: it records events in their order, with delay."""
        last, now = str(uuid4()), datetime.now(UTC).isoformat()
        event = {
            "id": str(uuid4()),
            "occurred": now,
            "event": "prefect.task-run.Completed",
            "resource": {"prefect.resource.id": f"prefect.task-run.{last}", "prefect.orchestration": "client"},
            "payload": {
                "validated_state": {"type": "COMPLETED", "name": "Completed"},
                "task_run": {"name": "last", "task_key": "last", "dynamic_key": last},
            },
        }
        self.post("events", [event])
        wanted = {"task_runs": {"id": {"any_": [last]}}}
        end = time.monotonic() + RECORDED_WITHIN_S
        while not self.post("task_runs/filter", wanted):
            assert time.monotonic() < end, "the server did not record a task run that it was told of"
            time.sleep(0.3)

    def task_states(self) -> dict[str, str]:
        """State of each task run of the newest flow run and its parts, by name."""
        flow_run = self.newest_run()["id"]
        runs = [flow_run, *(part["id"] for part in self.parts_of(flow_run))]
        # A part is a task run as well, of the part's name and the state that it has.
        wanted = {"flow_runs": {"id": {"any_": runs}}, "task_runs": {"subflow_runs": {"exists_": False}}, "limit": 200}
        self.await_records()
        end, before = time.monotonic() + 30, None
        while True:
            states = {row["name"]: row["state_name"] for row in self.post("task_runs/filter", wanted)}
            ended = all(state in ("Completed", "Cached", "Failed", "Crashed") for state in states.values())
            if (states and ended and states == before) or time.monotonic() > end:
                return states
            before = states
            time.sleep(1.5 * RECORDED_EVERY_S)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        """As a power cut does."""
        self.process.kill()
        self.process.wait()
        self.log.close()


def hear_ctrl_c() -> None:
    """For a process to be interrupted: what a script starts in the background ignores Ctrl-C, as do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Launcher:
    """Runs one command after the other, each in a process that has the large libraries imported."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", Path(__file__).with_name("launcher.py")]
        self.process = subprocess.Popen(command, env=shell(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        assert self.process.stdin and self.process.stdout
        with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as warned:
            places = {"stdout": output.name, "stderr": warned.name}
            request = {"command": command, "folder": str(folder), "environment": dict(environment), **places}
            print(json.dumps(request), file=self.process.stdin, flush=True)
            code = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(command, code, output.read(), warned.read())


@functools.cache
def launcher() -> Launcher:
    """That of this test process, with which it ends."""
    return Launcher()


def run(server: Server, folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """The command in a new process, whatever comes of it."""
    return launcher().run(command, folder, server.environment)


def fed_rag(folder: Path, *arguments: str, server: Server | None = None) -> None:
    """The command in its own folder, made if need be, and nothing wrong with it.

    Without a server it starts Prefect's embedded one, as a user's does who has started none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = server.environment if server else shell() | {"PREFECT_HOME": str(folder / "prefect")}
    done = launcher().run([str(COMMAND), *arguments], folder, environment)
    assert done.returncode == 0, done.stderr


def seconds_in(artifacts: Path) -> dict[str, float]:
    """By stage, what the manifests of all folders in a store say of the time that they took."""
    seconds: dict[str, float] = {}
    for path in artifacts.glob("**/manifest.json"):
        if path.relative_to(artifacts).parts[0] in ("source", "hospitals", "shared"):
            stage = path.parent.parent.name
            seconds[stage] = seconds.get(stage, 0.0) + json.loads(path.read_text())["seconds"]
    return seconds


def start(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What a user's shell does: all of it, with seconds of imports."""
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
