"""The deployments as an operator has them: real server and worker, a schedule that fires, a machine that dies."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Server
from machine import Machine, wait_for

from flows.automations import NAME

pytestmark = pytest.mark.slow

LONGER = {"dataset": {"images": 30}, "federation": {"rounds": 40}, "partition": {"hospitals": 2}}


@pytest.fixture(scope="module")
def machine(tiny_folder: Path, database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    (folder / "prefect").mkdir()
    machine = Machine(folder, Server(folder / "prefect", database), tiny_folder, cron="* * * * *")
    try:
        yield machine
    finally:
        machine.stop()


def test_schedules_fire_and_their_runs_finish(machine: Machine) -> None:
    wait_for(lambda: machine.runs("Scheduled") and machine.runs("Scheduled", "compare"), 60)
    done = wait_for(lambda: machine.runs("Completed"), 300)
    assert all(run["auto_scheduled"] for run in done)
    assert (machine.folder / "artifacts/latest/report.html").exists()


def test_deploying_again_leaves_one_automation(machine: Machine) -> None:
    before = machine.server.post("automations/filter", {})
    machine.deploy()
    assert [each["name"] for each in before] == [NAME]
    assert machine.server.post("automations/filter", {}) == before  # with the time of its last change


def test_a_run_whose_machine_died_is_marked_and_the_next_one_starts(machine: Machine) -> None:
    made = machine.begin(LONGER)
    updates = machine.folder / "artifacts/shared/update"
    before = len(list(updates.glob("*")))

    def trains() -> bool:
        running = [run["id"] for run in machine.runs("Running")]
        return made in running and len(list(updates.glob("*"))) > before

    wait_for(trains, 300)
    machine.kill()
    killed = time.monotonic()
    assert made in [run["id"] for run in machine.runs("Running")]
    machine.start_worker()
    wait_for(lambda: made in [run["id"] for run in machine.runs("Crashed")], 120)
    assert time.monotonic() - killed < 120
    finished = len(machine.runs("Completed"))
    wait_for(lambda: len(machine.runs("Completed")) > finished, 300)


def test_the_server_reported_no_error(machine: Machine) -> None:
    log = (machine.server.home / "server.log").read_text(encoding="utf-8")
    records = re.split(r"^(?=\d\d:\d\d:\d\d\.\d{3} \|)", log, flags=re.MULTILINE)
    failed = [record for record in records if re.search("ERROR|CRITICAL|Traceback|Error:", record)]
    # Where other tests take all cores, SQLite may be locked as a heartbeat is written: it is sent again.
    assert not [record for record in failed if "database is locked" not in record]
