"""Server, network, flow file or the record of a run are gone in the midst of a run that a worker does."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import PREFECT, Server, start
from door import Door, door_to
from machine import Machine, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(1800)]

ROUNDS = 12
AWAY_S = 60


@pytest.fixture(scope="module")
def server(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One of this module's own, since it is stopped; `machine` stops it in the end."""
    return Server(tmp_path_factory.mktemp("away-prefect"), database)


@pytest.fixture(scope="module")
def door(server: Server) -> Iterator[Door]:
    with door_to(server.port) as door:
        yield door


@pytest.fixture(scope="module")
def machine(
    server: Server, door: Door, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    url = f"http://127.0.0.1:{door.port}/api"
    machine = Machine(tmp_path_factory.mktemp("away"), server, tiny_folder, url=url)
    try:
        yield machine
    finally:
        machine.stop()


def training(machine: Machine, seed: int) -> str:
    """A run, in the midst of its rounds."""
    before = machine.made("update")
    run = machine.begin({"federation": {"rounds": ROUNDS, "batch_size": seed}})
    wait_for(lambda: machine.made("update") > before + 1, 300)
    assert machine.state(run) == "Running"
    return run


def rounds_of(machine: Machine, run: str) -> list[str]:
    return [part["name"] for part in machine.server.parts_of(run) if part["name"].startswith("round")]


EVERY = [f"round {number}" for number in range(1, ROUNDS + 1)]


def test_a_run_goes_on_while_the_server_is_restarted(machine: Machine) -> None:
    run = training(machine, 1)
    machine.server.stop()
    time.sleep(2)
    machine.server.start()
    machine.server.wait(300)
    assert machine.ended(run) == "Completed"
    assert rounds_of(machine, run) == EVERY


def test_a_run_goes_on_while_its_worker_cannot_reach_the_server_for_a_minute(machine: Machine, door: Door) -> None:
    run = training(machine, 2)
    door.shut()
    time.sleep(AWAY_S)
    door.open()
    assert machine.ended(run) == "Completed"
    assert rounds_of(machine, run) == EVERY
    assert machine.ended(machine.begin()) == "Completed"  # the worker takes the next one


def test_a_run_that_was_deleted_while_it_runs_leaves_its_stages_for_the_next(machine: Machine) -> None:
    run = training(machine, 3)
    machine.server.delete(f"flow_runs/{run}")
    assert machine.state(run) == ""
    wait_for(lambda: not machine.children(), 300)
    made = machine.made("update")
    again = machine.begin({"federation": {"rounds": ROUNDS, "batch_size": 3}})
    assert machine.ended(again) == "Completed"
    assert machine.made("update") >= made >= 2


def test_without_its_flow_file_a_run_says_so_and_its_retry_finds_it_again(machine: Machine) -> None:
    flows = machine.folder / "flows"
    place = flows.readlink()
    flows.unlink()
    run = machine.begin()
    assert machine.ended(run) in ("Failed", "Crashed")
    flows.symlink_to(place)
    done = start([str(PREFECT), "flow-run", "retry", run], machine.folder, machine.environment)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: machine.state(run) == "Completed", 300)
