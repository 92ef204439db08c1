"""Faults that hit a study itself: a disk that fills, a database that is locked, another study at the same time."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from command import TOP, Server, run
from disks import small_disk
from test_kills import command, kept

pytestmark = pytest.mark.slow

FULL = "No space left on device"


@pytest.mark.proof  # it waits minutes for commands on a small disk
def test_a_disk_that_fills_again_and_again_costs_nothing_that_is_finished(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    """The disk grows by a little after each run that it ended, so that each ends in another stage."""
    straight, filled, arguments = tmp_path / "straight", tmp_path / "filled", command(tiny_folder)
    straight.mkdir()
    assert run(server, straight, arguments).returncode == 0
    whole = sum(path.stat().st_blocks * 512 for path in (straight / "artifacts").rglob("*"))
    filled.mkdir()
    ended = set[str]()
    with small_disk(filled / "artifacts", f"size={whole // 5}"):
        for fifth in range(2, 20):
            done = run(server, filled, arguments)
            if done.returncode == 0:
                break
            assert FULL in done.stderr and "free some space" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            assert not list(filled.glob("artifacts/**/.*.tmp"))
            ended |= {
                line.split("/")[-2] for line in done.stderr.split() if "/artifacts" in line or "artifacts/" in line
            }
            size = f"remount,size={whole // 5 * fifth}"
            subprocess.run(["mount", "-o", size, filled / "artifacts"], check=True)
        assert len(ended) > 2, ended
        assert kept(filled) == kept(straight)


def test_two_studies_that_share_stages_run_at_once_as_if_alone(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    asked = [command(tiny_folder, f"retrieval.k={k}") for k in (1, 2)]
    for folder in (alone, together):
        folder.mkdir()
    begun = [
        subprocess.Popen(each, cwd=together, env=server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for each in asked
    ]
    for process in begun:
        assert process.communicate(timeout=500)[1] is not None and process.returncode == 0
    for each in asked:
        assert run(server, alone, each).returncode == 0
    assert tensors(together) == tensors(alone)
    assert not list(together.glob("artifacts/**/.*.tmp"))


def tensors(folder: Path) -> dict[str, bytes]:
    """By stage and key, all tensors in the store."""
    artifacts = folder / "artifacts"
    return {path.relative_to(artifacts).as_posix(): path.read_bytes() for path in artifacts.rglob("*.safetensors")}


LOCKED_S = 8
STEPS = """
import time
from prefect import flow, task
from flows.progress import Steps

@task(task_run_name="work-{number}")
def work(number: int) -> int:
    time.sleep(0.2)
    return number

@flow
def counts() -> None:
    steps = Steps("counts", 60)
    for number in range(60):
        steps.done(str(work(number)))

counts()
"""


def test_a_database_that_is_locked_for_a_while_is_waited_for(server: Server, tmp_path: Path) -> None:
    """As by a backup, or by a tool that looks into it."""
    (tmp_path / "steps.py").write_text(STEPS)
    environment = server.environment | {"PYTHONPATH": str(TOP)}
    process = subprocess.Popen(
        [sys.executable, "steps.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wanted = {"task_runs": {"name": {"any_": ["work-10"]}}}  # a limit would leave it out behind other tests' runs
    while not server.post("task_runs/filter", wanted):
        assert process.poll() is None
        time.sleep(0.2)
    with closing(sqlite3.connect(server.home / "prefect.db", timeout=60)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        assert process.poll() is None
        other.rollback()
    printed = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, printed
    states = server.task_states()
    assert states == {f"work-{number}": "Completed" for number in range(60)}


HOSPITALS, ROUNDS = 64, 20
HELD = 10_000
"""Messages that Prefect's server holds for its recorder in memory; it drops what comes beyond."""
STATES = 3
"""Messages of one task run: it is about to run, it runs, it has ended."""
MANY = f"""
from prefect import flow, task, unmapped
from prefect.client.orchestration import get_client
from flows.parts import within_part

@task(task_run_name="train hospital-{{hospital}} round {{number}}")
def train(hospital: int, number: int) -> None:
    pass

def recorded(client) -> int:
    wanted = {{"task_runs": {{"state": {{"type": {{"any_": ["COMPLETED"]}}}}, "name": {{"like_": "train hospital-"}}}}}}
    return client.request("POST", "/task_runs/count", json=wanted).json()

@flow
def many() -> None:
    client = get_client(sync_client=True)
    before = recorded(client)
    for number in range(1, {ROUNDS} + 1):
        part = lambda: train.map(list(range({HOSPITALS})), unmapped(number)).wait()
        within_part("round", part, f"round {{number}}")
        print("backlog", before + number * {HOSPITALS} - recorded(client), flush=True)

many()
"""


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_the_recorder_keeps_up_with_64_hospitals_by_20_rounds(server: Server, tmp_path: Path) -> None:
    """Of tasks that do nothing, and so come faster than any that train."""
    (tmp_path / "many.py").write_text(MANY)
    environment = server.environment | {"PYTHONPATH": str(TOP), "PREFECT_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, "many.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr
    backlog = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("backlog")]
    assert len(backlog) == ROUNDS and max(backlog) * STATES < HELD, backlog
    whole = server.newest_run()["id"]
    parts = [part["id"] for part in server.parts_of(whole)]
    wanted = {"flow_runs": {"id": {"any_": parts}}, "task_runs": {"state": {"name": {"any_": ["Completed"]}}}}
    end = time.monotonic() + 120
    while (found := server.post("task_runs/count", wanted)) < HOSPITALS * ROUNDS:
        assert time.monotonic() < end, f"{found} of {HOSPITALS * ROUNDS} are recorded"
        time.sleep(1)
    assert found == HOSPITALS * ROUNDS
