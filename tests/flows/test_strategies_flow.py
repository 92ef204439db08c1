"""Whole studies with strategies that keep more than an adapter: stopped and resumed, they end in the same bytes."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import COMMAND, Server, hear_ctrl_c, run

SETTINGS = ("dataset.images=10", "federation.rounds=2", "partition.hospitals=3", "evaluation.max_new_tokens=4")
SETTINGS += ("evaluation.min_cell=1", "evaluation.reliance=0", "evaluation.saliency=0")


def arguments(model: Path, *more: str) -> list[str]:
    return [str(COMMAND), "run"] + [
        word for each in (f"model.name={model}", *SETTINGS, *more) for word in ("--set", each)
    ]


def kept(folder: Path) -> list[tuple[str, bytes]]:
    """The tensors of the final adapter's folder, and each hospital's control variates, in the order of their bytes."""
    finished = (folder / "artifacts/latest").resolve()
    adapter = folder / "artifacts" / json.loads((finished / "references.json").read_text())["adapter"]
    controls = folder.glob("artifacts/hospitals/*/control/*/*.safetensors")
    paths = [*adapter.glob("*.safetensors"), *controls]
    return sorted((path.name, path.read_bytes()) for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "files"), [("scaffold", 8), ("fedadam", 3)])
def test_a_killed_study_ends_in_the_same_bytes(
    server: Server, tiny_folder: Path, tmp_path: Path, strategy: str, files: int
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    command = arguments(tiny_folder, f"federation.strategy={strategy}")
    for folder in (straight, killed):
        folder.mkdir()
    assert run(server, straight, command).returncode == 0
    assert len(kept(straight)) == files
    process = subprocess.Popen(
        command,
        cwd=killed,
        env=server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=hear_ctrl_c,
    )
    end = time.monotonic() + 120
    while len(list(killed.glob("artifacts/shared/update/[!.]*/manifest.json"))) < 4:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(server, killed, command).returncode == 0
    assert kept(killed) == kept(straight)


@pytest.mark.slow
def test_hospitals_with_control_variates_train_one_after_the_other_also_where_they_were_to_be_batched(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    mapped = arguments(tiny_folder, "federation.strategy=scaffold")
    assert run(server, tmp_path, mapped).returncode == 0
    assert run(server, tmp_path, [*mapped, "--set", "engine.executor=batched"]).returncode == 0
    states = server.task_states()
    assert {state for name, state in states.items() if name.startswith(("train ", "keep control"))} == {"Cached"}
    assert not list(tmp_path.glob("artifacts/shared/updates/*"))
