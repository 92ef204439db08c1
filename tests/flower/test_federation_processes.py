"""A federation in processes of its own on loopback: one coordinator and three hospitals, killed and started again."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from command import COMMAND, Server
from federation_samples import ASKED, HOSPITALS, write_tables

from flows.runtimes.flower.keys import make_keys
from flows.told import told_by
from tasks.records import UpdateCounts
from tasks.records.federation import ADAPTER_FILE
from tasks.settings.hospital import AgreementSettings

PORT = 20000 + os.getpid() % 20000
SETTINGS = {
    "federation.rounds": "2",
    "federation.local_epochs": "8",
    "federation.holdout": "0.25",
    "lora.r": "4",
    "evaluation.min_cell": "1",
    "evaluation.max_new_tokens": "1",
    "evaluation.reliance": "0",
    "evaluation.saliency": "0",
}
WITHIN_S = 900
SCORED = ("told-scores", "scores.json", 1)
"""Stage, file, and how often in a study of two rounds each hospital leaves it."""


class Running:
    """A command in a process of its own, whose lines go to a file."""

    def __init__(self, server: Server, folder: Path, *words: str, command: Sequence[str] = (str(COMMAND),)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._command, self._folder, self._environment = [*command, *words], folder, server.environment
        self.log = folder.parent / f"{folder.name}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=sink, stderr=sink
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, count: int = 1) -> None:
        end = time.monotonic() + WITHIN_S
        while self.said().count(text) < count:
            assert time.monotonic() < end and self._process.poll() is None, f"{text!r} not in:\n{self.said()}"
            time.sleep(0.02)

    def ends_with(self) -> int:
        return self._process.wait(WITHIN_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


Start = Callable[..., Running]


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """Starts commands, which end with the test."""
    running: list[Running] = []

    def begin(folder: Path, *words: str, command: Sequence[str] = (str(COMMAND),)) -> Running:
        running.append(Running(server, folder, *words, command=command))
        return running[-1]

    yield begin
    for each in running:
        each.end()


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path) -> Path:
    """Tables, keys, and each hospital's folder with its settings."""
    write_tables(tmp_path / "tables")
    make_keys(tmp_path / "keys", HOSPITALS, ["127.0.0.1"], days=2)
    for name in HOSPITALS:
        write_hospital(tmp_path, name, tiny_folder)
    return tmp_path


def write_hospital(place: Path, name: str, base: Path, keys: str = "keys") -> None:
    given = place / keys / "hospitals" / name
    folder = place / name
    folder.mkdir(exist_ok=True)
    settings = {
        "name": name,
        "disjoint": "none",
        "dataset": {"name": "table", "root": str(place / "tables" / name)},
        "model": {"name": str(base)},
        "coordinator": {
            "address": f"127.0.0.1:{PORT}",
            "authority": str(place / "keys/ca.crt"),
            "key": str(given / "node.key"),
        },
        "agreement": {"local_epochs": 8, "min_cell": 1, "strategies": ["fedavg", "scaffold", "fedprox"]},
    }
    (folder / "hospital.yaml").write_text(json.dumps(settings), encoding="utf-8")


def words(settings: dict[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def adapter(folder: Path) -> Path:
    """The server's adapter after the last round."""
    rounds = {
        path.parent: json.loads(path.read_text()) for path in folder.glob("artifacts/shared/adapter/*/round.json")
    }
    return max(rounds, key=lambda place: rounds[place]["round"])


def personal(folder: Path, hospital: str) -> bytes:
    """A hospital's personal adapter in a run."""
    references = json.loads((folder / "artifacts/latest/references.json").read_text(encoding="utf-8"))
    return (folder / "artifacts" / references["hospitals"][hospital]["personal"] / ADAPTER_FILE).read_bytes()


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("strategy", "kind"), [("fedavg", "ditto"), ("scaffold", "mixture"), ("fedprox", "fedper")])
def test_hospitals_and_coordinator_are_killed_and_the_adapter_is_that_of_a_simulation(
    strategy: str, kind: str, place: Path, start: Start, tiny_folder: Path
) -> None:
    given = SETTINGS | {"model.name": str(tiny_folder), "federation.strategy": strategy, "federation.personal": kind}
    if kind == "fedper":
        given["federation.personal_layers"] = "[q_proj]"
    hospitals = {name: start(place / name, "hospital", "join") for name in HOSPITALS}
    command = ["coordinator", "start", "../keys", "--listen", f"127.0.0.1:{PORT}", *words(given)]
    coordinator = start(place / "coordinator", *command)

    hospitals["hospital-2"].wait_for("training for round 1")
    hospitals["hospital-2"].kill()
    hospitals["hospital-2"].start()
    coordinator.wait_for("round 1: training loss")
    assert "hospital-2 left before it answered" in coordinator.said()
    coordinator.kill()
    coordinator.start()
    coordinator.wait_for("wrote artifacts/runs/")
    assert coordinator.ends_with() == 0

    for name in ("hospital-1", "hospital-3"):
        said = hospitals[name].said()
        assert said.count("training for round 1") == said.count("training for round 2") == 1
        assert said.count("agreed to a study of 2 rounds") == 2
    table = {"dataset.name": "table", "dataset.root": str(place / "tables/all")}
    dealt = {"partition.hospitals": "3", "partition.scheme": "organ"}
    assert start(place / "simulation", "run", *words(given | table | dealt)).ends_with() == 0
    ours, simulated = adapter(place / "coordinator"), adapter(place / "simulation")
    for name in (ADAPTER_FILE, "adapter_config.json", "round.json"):
        assert (ours / name).read_bytes() == (simulated / name).read_bytes()
    for name in HOSPITALS:
        assert personal(place / name, name) == personal(place / "simulation", name)
    assert not list((place / "coordinator/artifacts").rglob("personal"))
    assert_scores_are_those_of_a_simulation(place)
    assert_nothing_else_arrived(place / "coordinator/artifacts")


def assert_scores_are_those_of_a_simulation(place: Path) -> None:
    """What hospitals told of their answers pools to the same; each has a run and a page of its own."""
    told = json.loads((place / "coordinator/artifacts/latest/federation.json").read_text(encoding="utf-8"))["scores"]
    results = json.loads((place / "simulation/artifacts/latest/results.json").read_text(encoding="utf-8"))
    simulated = results["configurations"] | results["baselines"]
    assert told.keys() == simulated.keys()
    for name, scores in told.items():
        assert scores["closed"]["n"] == scores["open"]["n"] == 2 * len(HOSPITALS)
        for kind in ("closed", "open"):
            assert scores[kind] == simulated[name][kind]
    for name in HOSPITALS:
        assert (place / name / "artifacts/latest/report.html").exists()


def assert_nothing_else_arrived(artifacts: Path) -> None:
    """What is at the coordinator is what `fed-rag hospital check` tells, and no word or image of a case."""
    assert not (artifacts / "source").exists() and not (artifacts / "hospitals").exists()
    told = {(each.file, each.field) for each in told_by(AgreementSettings(), 1, 1, 1, 1)}
    for stage, file, rounds in (("update", "update.json", 2), ("validation", "validation.json", 2), SCORED):
        found = list((artifacts / "shared" / stage).glob(f"**/{file}"))
        assert len(found) == rounds * len(HOSPITALS)
        for path in found:
            document = json.loads(path.read_text(encoding="utf-8"))
            assert {(file, field) for field in document} == {each for each in told if each[0] == file}
    assert {field.name for field in fields(UpdateCounts)} <= {field for _, field in told}
    words = [word.encode() for question, *_ in ASKED for word in [question]] + [b"organ 1", b"\x89PNG", b".parquet"]
    for path in artifacts.rglob("*"):
        if path.is_file() and path.suffix != ".png" and path.name != "manifest.json":
            assert not [word for word in words if word in path.read_bytes()], path


def assert_no_key_is_out(place: Path, server: Server) -> None:
    """No line of a private key is in artifacts, logs, or the server's database, where parameters of runs are."""
    keys = [path.read_text(encoding="ascii") for path in (*place.glob("keys/**/*.key"), *place.glob("others/**/*.key"))]
    lines = [line.encode() for key in keys for line in key.splitlines()[2:-1]]  # the first is the same for all keys
    assert len(keys) == len(HOSPITALS) + 5 and len(lines) > len(keys)
    folders = [*place.glob("*/artifacts"), server.home]
    for path in (*place.glob("*.log"), *(path for folder in folders for path in folder.rglob("*") if path.is_file())):
        content = path.read_bytes()
        assert not [line for line in lines if line in content], path


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_who_is_not_registered_or_does_not_agree_is_told_so(
    place: Path, start: Start, server: Server, tiny_folder: Path
) -> None:
    """A stranger's key; a study of more rounds than the first hospital agreed to. No private key is anywhere else."""
    make_keys(place / "others", ["west"], ["127.0.0.1"], days=2)
    (place / "tables/hospital-3").rename(place / "tables/west")
    write_hospital(place, "west", tiny_folder, keys="others")
    for name in HOSPITALS[1:]:
        (place / f"keys/nodes/{name}.pub").unlink()
    command = ["coordinator", "start", "../keys", "--listen", f"127.0.0.1:{PORT}", "--set", "federation.rounds=30"]
    coordinator = start(place / "coordinator", *command, "--set", f"model.name={tiny_folder}")
    coordinator.wait_for("listening on")
    stranger = start(place / "west", "hospital", "join")
    assert stranger.ends_with() == 1
    assert "knows this hospital's key, found one that does not" in stranger.said()
    hospital = start(place / "hospital-1", "hospital", "join")
    assert coordinator.ends_with() == 1
    refusal = "Expected federation.rounds of at most 20, as it agreed to, found 30"
    assert f"hospital-1 refused: {refusal}" in coordinator.said()
    hospital.wait_for(f"refused: {refusal}")
    assert "Traceback" not in coordinator.said() + hospital.said() + stranger.said()
    assert_no_key_is_out(place, server)
