"""A study in which hospitals come, go and fail: who took part is told, and replaying it gives the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import Server, run
from test_strategies_flow import SETTINGS

pytestmark = pytest.mark.slow

FAILING = """
import tasks.federate.training as training
train_into = training.train_into


def failing(folder, hospital, *more):
    if hospital.name == "hospital-2" and more[5] == 2:
        raise MemoryError("while reading Mr Smith")
    train_into(folder, hospital, *more)


training.train_into = failing
from flows.cli.main import main
main()
"""
"""The command, on a machine where the second round is too much for one hospital."""
SETTINGS_HERE = ("partition.hospitals=4", "federation.rounds=3", "federation.leaves={hospital-1: 2}")


def command(model: Path, *more: str) -> list[str]:
    given = (f"model.name={model}", *SETTINGS, *SETTINGS_HERE, *more)
    return ["run", *(word for each in given for word in ("--set", each))]


def test_a_hospital_that_fails_is_named_and_the_record_replays_to_the_same_bytes(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    first, again, whole = (tmp_path / name for name in ("first", "again", "whole"))
    for folder in (first, again, whole):
        folder.mkdir()
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    broken = subprocess.run(  # in a process of its own, not forked from one whose modules are loaded
        [sys.executable, str(script), *command(tiny_folder)],
        cwd=first,
        env=server.environment,
        capture_output=True,
        text=True,
    )
    assert broken.returncode == 0, broken.stderr
    assert "hospital-2 did not answer in round 2: MemoryError" in broken.stderr + broken.stdout
    finished = (first / "artifacts/latest").resolve()
    rows = json.loads((finished / "participation.json").read_text())["rounds"]
    everyone = [f"hospital-{number}" for number in range(1, 5)]
    assert [row["asked"] for row in rows] == [everyone, everyone, everyone[1:]]
    assert [row["missing"] for row in rows] == [{}, {"hospital-2": "MemoryError"}, {}]
    assert "Mr Smith" not in (finished / "results.json").read_text() + (finished / "report.html").read_text()
    assert "did not answer: MemoryError" in (finished / "report.html").read_text()
    record = finished / "participation.json"
    program = [str(Path(sys.executable).with_name("fed-rag"))]
    replayed = run(server, again, [*program, *command(tiny_folder, f"federation.participation={record}")])
    assert replayed.returncode == 0, replayed.stderr
    assert final(again) == final(first)
    assert run(server, whole, [*program, *command(tiny_folder)]).returncode == 0
    assert final(whole) != final(first)


def final(folder: Path) -> dict[str, bytes]:
    """Each hospital's final adapter: the one that left has that of its last round."""
    references = json.loads((folder / "artifacts/latest/references.json").read_text())["hospitals"]
    found = {
        name: (folder / "artifacts" / places["adapter"] / "adapter_model.safetensors").read_bytes()
        for name, places in references.items()
    }
    assert found["hospital-1"] != found["hospital-2"] == found["hospital-3"] == found["hospital-4"]
    return found
