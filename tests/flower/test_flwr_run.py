"""A whole `flwr run`: a SuperLink, SuperNodes and Flower's own processes on loopback, as a site starts them."""

import contextlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command import TOP, Server
from federation_samples import HOSPITALS
from test_federation_processes import SETTINGS, Running, Start, adapter, words
from test_federation_processes import place as place
from test_federation_processes import start as start

from tasks.records.federation import ADAPTER_FILE

PLACES = {"fleet": 0, "control": 1, "serverappio": 2}
FIRST = 40000 + os.getpid() % 20000
BIN = Path(sys.executable).parent
WITHIN_S = 900
SMALL = 100_000
"""Most bytes of what `flwr run` sends to hospitals before a study."""


@pytest.fixture
def flower(server: Server, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What Flower's commands are given: no reports, a home of its own that names the SuperLink."""
    home = tmp_path / "flwr"
    home.mkdir()
    link = f'[superlink.here]\naddress = "{at("control")}"\nroot-certificates = "{tmp_path / "keys/ca.crt"}"\n'
    (home / "config.toml").write_text(link, encoding="utf-8")
    given = {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    given["PATH"] = f"{BIN}:{os.environ['PATH']}"  # Flower starts its own commands by their names
    server.environment.update(given)
    yield server.environment
    end_started(str(home))
    for name in ("FLWR_HOME", "FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"):
        del server.environment[name]


def end_started(home: str) -> None:
    """End what Flower's commands have started and left behind, such as a process that still answers a message."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FLWR_HOME") == home:
                process.kill()


def at(api: str) -> str:
    return f"127.0.0.1:{FIRST + PLACES[api]}"


def flwr(environment: dict[str, str], folder: Path, *given: str) -> str:
    done = subprocess.run(
        [BIN / "flwr", *given], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_superlink(start: Start, place: Path) -> Running:
    keys = place / "keys"
    certificates = (
        *("--ssl-ca-certfile", keys / "ca.crt", "--ssl-certfile", keys / "server.crt"),
        *("--ssl-keyfile", keys / "server.key"),
    )
    addresses = [word for api in PLACES for word in (f"--{api}-api-address", at(api))]
    off = "--disable-runtime-dependency-installation"
    command = (str(BIN / "flower-superlink"), "--enable-supernode-auth", off, *map(str, certificates), *addresses)
    return start(place / "coordinator", command=command)


def start_supernodes(start: Start, place: Path) -> list[Running]:
    started = []
    for number, name in enumerate(HOSPITALS):
        command = [
            *(str(BIN / "flower-supernode"), "--root-certificates", str(place / "keys/ca.crt")),
            *("--superlink", at("fleet"), "--clientappio-api-address", f"127.0.0.1:{FIRST + 10 + number}"),
            *("--auth-supernode-private-key", str(place / f"keys/hospitals/{name}/node.key")),
            *("--node-config", f"hospital='{place / name}'"),
        ]
        started.append(start(place / f"node-{name}", command=command))
    return started


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_flwr_run_makes_the_adapter_of_a_simulation(
    place: Path, flower: dict[str, str], start: Start, tiny_folder: Path
) -> None:
    given = SETTINGS | {"model.name": str(tiny_folder), "federation.local_epochs": "2"}
    table = {"dataset.name": "table", "dataset.root": str(place / "tables/all")}
    dealt = {"partition.hospitals": "3", "partition.scheme": "organ"}
    simulation = start(place / "simulation", "run", *words(given | table | dealt))
    assert simulation.ends_with() == 0

    (place / "study.yaml").write_text(json.dumps(nested(given)), encoding="utf-8")
    superlink = start_superlink(start, place)
    superlink.wait_for("Fleet API")
    for name in HOSPITALS:
        flwr(flower, place, "supernode", "register", str(place / f"keys/nodes/{name}.pub"), "here")
    nodes = start_supernodes(start, place)
    config = f"hospitals=3 settings='{place / 'study.yaml'}'"
    began = flwr(flower, place, "run", str(TOP), "here", "--run-config", config, "--format", "json")
    run = json.loads(began)["run-id"]
    logs = (superlink, *nodes)
    assert await_end(flower, place, run) == "finished:completed", "\n".join(each.said() for each in logs)

    ours, simulated = adapter(place / "coordinator"), adapter(place / "simulation")
    for file in (ADAPTER_FILE, "adapter_config.json", "round.json"):
        assert (ours / file).read_bytes() == (simulated / file).read_bytes()


def nested(settings: dict[str, str]) -> dict[str, dict[str, object]]:
    """Settings by dotted name as a settings file has them."""
    found: dict[str, dict[str, object]] = {}
    for name, value in settings.items():
        group, field = name.split(".")
        found.setdefault(group, {})[field] = value if group == "model" else json.loads(value)
    return found


def await_end(environment: dict[str, str], folder: Path, run: str) -> str:
    """How Flower says that a run has ended."""
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        listed = flwr(environment, folder, "list", "here", "--run-id", run, "--format", "json")
        status = str(json.loads(listed)["runs"][0]["status"])
        if status.startswith("finished"):
            return status
        time.sleep(3)
    raise TimeoutError(f"the run is {status}")


def test_no_code_and_nothing_large_travels_by_flwr_run(tmp_path: Path) -> None:
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(tmp_path),
    }
    flwr(environment, tmp_path, "build", "--app", str(TOP))
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as packed:
        assert set(packed.namelist()) == {"pyproject.toml", "LICENSE", ".info/CONTENT"}
    assert bundle.stat().st_size < SMALL
