"""A command that has a Prefect server of its own: how it ends by Ctrl-C, and what it says where none can be had."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from command import COMMAND, hear_ctrl_c, shell, start

from flows.interrupt import MESSAGE

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As of a user who has started no server, with a record of its own."""
    return shell() | {"PREFECT_HOME": str(tmp_path / "prefect")}


def test_ctrl_c_leaves_one_line_a_crashed_run_and_no_process(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [str(COMMAND), "audit", "--set", "dataset.images=100"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        assert process.stderr
        assert "ingested" in process.stderr.readline()
        servers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group
        printed = process.stderr.read()
    assert process.returncode == 130
    assert printed.split("\n") == ["", MESSAGE, ""]
    # The server writes down what it still holds as it ends.
    assert len(servers) == 1 and not psutil.wait_procs(servers, timeout=60)[1]
    with closing(sqlite3.connect(tmp_path / "prefect/prefect.db")) as record:
        assert record.execute("SELECT name, state_name FROM flow_run").fetchall()[0][1] == "Crashed"
        assert not record.execute("SELECT name FROM task_run WHERE state_name = 'Running'").fetchall()
    assert not list(tmp_path.glob("artifacts/**/.*.tmp"))


AMID_A_WRITE = """
import os, signal, sys
from flows.interrupt import interruptible

class Busy:
    def write(self, text=""):
        raise RuntimeError("reentrant call inside the stream")
    flush = write

with interruptible():
    sys.stdout = sys.stderr = Busy()
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except RuntimeError:  # as logging does with what a line of its own raises
        pass
    signal.pause()
"""


def test_ctrl_c_amid_a_line_ends_the_command_too(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AMID_A_WRITE], env=environment, capture_output=True, timeout=60, preexec_fn=hear_ctrl_c
    )
    assert (done.returncode, done.stderr.decode()) == (130, f"\n{MESSAGE}\n")


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path, environment: dict[str, str]) -> None:
    url = "http://127.0.0.1:9/api"
    done = start([str(COMMAND), "audit"], tmp_path, environment | {"PREFECT_API_URL": url})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert url in done.stderr and "prefect server start" in done.stderr


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, environment: dict[str, str]) -> None:
    home = "/dev/null/prefect"
    done = start([str(COMMAND), "audit"], tmp_path, environment | {"PREFECT_HOME": home})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert home in done.stderr and "PREFECT_HOME" in done.stderr


def test_a_database_that_is_none_is_one_sentence(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect/prefect.db").write_text("no database")
    done = start([str(COMMAND), "audit"], tmp_path, environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "not a database" in done.stderr


def test_what_ends_a_flow_is_reported_once(tmp_path: Path, environment: dict[str, str]) -> None:
    absent = ["--set", "dataset.name=vqa-rad", "--set", f"dataset.root={tmp_path / 'absent'}"]
    done = start([str(COMMAND), "run", *absent], tmp_path, environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ") and "absent" in done.stderr
