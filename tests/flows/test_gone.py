"""Runs whose process is gone: what a server shows of them once the next run begins, and how that run knows."""

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from command import PREFECT, TOP, Server, start

from flows import gone

FLOWS = """
import time
from pathlib import Path
from prefect import flow, task
from flows.gone import HOOKS

@task
def work(seconds: float) -> None:
    Path("working").touch()
    time.sleep(seconds)

@flow(**HOOKS)
def part(seconds: float) -> None:
    work(seconds)

@flow(**HOOKS)
def whole() -> None:
    part(0 if Path("working").exists() else 600)

if __name__ == "__main__":
    whole()
"""

HOLDS = """
import sys, uuid
from pathlib import Path
from flows.gone import _hold
_hold(Path(sys.argv[1]), uuid.UUID(sys.argv[2]))
print("held", flush=True)
input()
"""


def test_a_run_is_gone_once_its_process_is_killed_and_reported_once(tmp_path: Path) -> None:
    run = uuid.uuid4()
    command = [sys.executable, "-c", HOLDS, str(tmp_path), str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        mine = [uuid.uuid4() for _ in range(3)]
        assert gone._hold(tmp_path, mine[0]) == []
        process.kill()
        process.wait()
    assert gone._hold(tmp_path, mine[1]) == [run]
    assert gone._hold(tmp_path, mine[2]) == []
    assert {path.name for path in tmp_path.iterdir()} == {"lock", *map(str, mine)}
    for each in mine:
        gone._locks.pop(each).release()


def test_a_run_is_begun_again_though_its_first_process_still_lives(tmp_path: Path) -> None:
    run = uuid.uuid4()
    command = [sys.executable, "-c", HOLDS, str(tmp_path), str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert gone._hold(tmp_path, run) == [] and run not in gone._locks
        process.kill()
        process.wait()
    assert gone._hold(tmp_path, run) == []
    gone._locks.pop(run).release()


@pytest.mark.slow
@pytest.mark.parametrize("again", ["the same command", "a retry"])
def test_what_was_at_work_when_its_process_was_killed_is_not_shown_as_running(
    server: Server, tmp_path: Path, again: str
) -> None:
    (tmp_path / "small.py").write_text(FLOWS)
    command = [sys.executable, str(tmp_path / "small.py")]
    environment = server.environment | {"PYTHONPATH": str(TOP)}
    before = {run["id"] for run in server.begun_runs()}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    killed, end = {}, time.monotonic() + 120
    while len(server.shown_as_running(*killed)) < 2:  # the task, and the one that stands for the flow within the flow
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.2)
        killed = {run["id"]: run for run in server.begun_runs() if run["id"] not in before}
    process.kill()
    process.wait()
    (whole,) = (each for each, run in killed.items() if run["parent_task_run_id"] is None)
    if again == "a retry":
        server.post(f"flow_runs/{whole}/set_state", {"state": {"type": "CRASHED"}, "force": True})  # as a worker does
        command = [str(PREFECT), "flow-run", "retry", whole, "--entrypoint", f"{tmp_path / 'small.py'}:whole"]
    done = start(command, tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {run["id"]: run["state_name"] for run in server.begun_runs()}
    assert [states.pop(each) for each in killed if each != whole] == ["Crashed"]
    assert states.pop(whole) == ("Completed" if again == "a retry" else "Crashed")
    assert {state for each, state in states.items() if each not in before} == {"Completed"}
    assert not server.shown_as_running(*killed)
    assert [path.name for path in (tmp_path / "artifacts/.running").iterdir()] == ["lock"]
