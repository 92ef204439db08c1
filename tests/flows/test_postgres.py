"""PostgreSQL instead of SQLite, and two workers: what docs/operations.md sets up."""

import os
import pwd
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from command import Server
from machine import Machine, wait_for

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
INITDB = str(BINARIES[-1]) if BINARIES else shutil.which("initdb")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.proof,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(INITDB is None, reason="needs PostgreSQL (apt-get install postgresql)"),
]


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty database of a PostgreSQL of this module's own, on loopback."""
    assert INITDB
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    owner = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # it refuses to run as root
    place = Path(subprocess.check_output(["mktemp", "-d", "/tmp/fed-rag-postgres.XXXXXX"], text=True).strip())
    shutil.chown(place, owner)
    data, binaries = place / "data", Path(INITDB).parent

    def run(*command: str) -> None:
        subprocess.run(command, cwd=place, user=owner, check=True, capture_output=True, timeout=300)

    run(INITDB, "-D", str(data), "-U", "prefect", "--auth=trust", "--encoding=UTF8")
    options = f"-p {port} -h 127.0.0.1 -k {place}"
    log = str(place / "log")
    run(str(binaries / "pg_ctl"), "start", "--wait", "-D", str(data), "-l", log, "-o", options)
    try:
        run(str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        run(str(binaries / "pg_ctl"), "stop", "-D", str(data), "-m", "fast")
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def machine(
    database_url: str, database: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("postgres-prefect")
    server = Server(home, database, {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url})
    machine = Machine(tmp_path_factory.mktemp("postgres"), server, tiny_folder)
    try:
        machine.start_worker()
        yield machine
    finally:
        machine.stop()


def test_two_workers_share_the_runs_and_one_goes_on_without_the_other(machine: Machine) -> None:
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    wait_for(lambda: len(machine.server.post("work_pools/local/workers/filter", online)) == 2, 120)
    first, second = machine.begin(), machine.begin({"federation": {"rounds": 2}})
    assert [machine.ended(run, 600) for run in (first, second)] == ["Completed", "Completed"]
    machine.stop_worker()
    third = machine.begin({"federation": {"rounds": 3}})
    assert machine.ended(third, 600) == "Completed"
    asked = {"flow_runs": {"id": {"any_": [first, second, third]}}}
    assert [each["run_count"] for each in machine.server.post("flow_runs/filter", asked)] == [1, 1, 1]
    assert len(list((machine.folder / "artifacts/runs").glob("[!.]*"))) == 3


def test_the_record_is_in_postgresql_alone(machine: Machine) -> None:
    with closing(sqlite3.connect(machine.server.home / "prefect.db")) as unused:
        assert unused.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)
    log = (machine.server.home / "server.log").read_text(encoding="utf-8")
    assert not re.search("ERROR|CRITICAL|Traceback", log), log
