"""`make serve`: server, worker and deployments with one command, started again, and stopped by Ctrl-C."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from command import hear_ctrl_c, shell

from flows.automations import NAME as SILENT
from flows.notifications import NAME as NOTIFICATIONS
from flows.operate import NOTIFY, once, refuse_taken
from tasks.errors import StudyError

TOP = Path(__file__).parents[2]
DEPLOYED = ["attack/monthly", "audit/daily", "compare/weekly", "fed-rag/nightly", "federation/nightly", "pretrain/base"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def automations(port: int) -> list[str]:
    """The names of all automations of a server, in order."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/automations/filter", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as reply:
        return sorted(each["name"] for each in json.load(reply))


def test_a_taken_port_is_refused_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StudyError, match=r"Expected port \d+ of 127.0.0.1 to be free, found it taken"):
            refuse_taken(taken.getsockname()[1])
    refuse_taken(free_port())


def test_a_command_of_prefects_that_fails_is_told_with_its_last_line() -> None:
    with pytest.raises(StudyError, match=r"Expected `prefect no-such-command` to work, found: .+"):
        once("no-such-command")


@pytest.mark.slow
def test_all_deployments_are_there_also_the_second_time_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "checkout"
    folder.mkdir()
    for name in ("flows", "tasks", "data", "prefect.toml", "prefect.yaml"):
        (folder / name).symlink_to(TOP / name)
    environment = shell() | {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(TOP)}
    environment |= {NOTIFY: "http://127.0.0.1:9/s3cret"}
    for _ in range(2):
        log = tmp_path / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.operate", str(port)],
                cwd=folder,
                env=environment,
                stdout=sink,
                stderr=sink,
                preexec_fn=hear_ctrl_c,
            )
        end = time.monotonic() + 400
        while "Ctrl-C stops server and worker" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        listed = subprocess.run(
            [str(Path(sys.executable).with_name("prefect")), "deployment", "ls"],
            env=environment | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "COLUMNS": "200"},
            capture_output=True,
            text=True,
        )
        assert [name for name in DEPLOYED if listed.stdout.count(name) == 1] == DEPLOYED, listed.stdout
        assert automations(port) == [NOTIFICATIONS, SILENT]
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2 and not any(NOTIFY in each.environ() for each in started)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, log.read_text()
        assert "Stopped." in log.read_text() and "s3cret" not in log.read_text()
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2)
