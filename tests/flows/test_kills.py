"""A study that is killed again and again, at any moment, ends in the bytes of one that nothing disturbed."""

import contextlib
import hashlib
import json
import random
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import COMMAND, Server, launcher, run
from machine import Machine, wait_for
from safetensors import SafetensorError, safe_open

KILLS = 10
SETTINGS = ("dataset.images=10", "partition.hospitals=3", "federation.rounds=3", "evaluation.max_new_tokens=4")
SETTINGS += ("evaluation.min_cell=1", "evaluation.reliance=0", "evaluation.saliency=0")


def command(model: Path, *more: str) -> list[str]:
    words = [word for each in (f"model.name={model}", *SETTINGS, *more) for word in ("--set", each)]
    return [str(COMMAND), "run", *words]


def kept(folder: Path) -> dict[str, str]:
    """By stage and name, digests of the tensors that the study made, and its results but for time and memory."""
    artifacts = folder / "artifacts"
    found = sorted(
        (f"{path.parts[-3]}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest())
        for path in artifacts.glob("**/*.safetensors")
    )
    results: dict[str, Any] = json.loads((artifacts / "latest/results.json").read_text())
    for name in ("run", "timings_s", "peak_memory_bytes"):
        del results[name]
    for row in results["rounds"]:
        del row["seconds"]
    digests = {f"{number} {name}": digest for number, (name, digest) in enumerate(found)}
    return digests | {"results": json.dumps(results, sort_keys=True)}


def made(folder: Path) -> int:
    """How many folders the store holds that are whole."""
    return len(list(folder.glob("artifacts/*/**/manifest.json")))


def kill_after(folder: Path, arguments: list[str], server: Server, more: int, moment: float) -> bool:
    """Run a study, and kill it a moment after so many more of its folders are whole; False if it ended before."""
    folders = made(folder) + more
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, server, folder, arguments)
        while made(folder) < folders and not running.done():
            time.sleep(0.005)
        wait([running], timeout=moment)
        if not running.done():
            (process,) = psutil.Process(launcher().process.pid).children()
            process.kill()
        return running.result().returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "rules",
    [
        ("federation.strategy=scaffold",),
        ("federation.personal=ditto",),
        ("federation.secure_aggregation=true",),
    ],
    ids=["scaffold", "ditto", "secure"],
)
def test_ten_kills_at_any_moment_change_nothing(
    server: Server, tiny_folder: Path, tmp_path: Path, rules: tuple[str, ...]
) -> None:
    straight, killed, drawn = tmp_path / "straight", tmp_path / "killed", random.Random(rules[0])
    arguments = command(tiny_folder, *rules)
    for folder in (straight, killed):
        folder.mkdir()
    assert run(server, straight, arguments).returncode == 0
    most = made(straight) // (KILLS + 1)
    for _ in range(KILLS):
        assert kill_after(killed, arguments, server, drawn.randint(1, most), drawn.uniform(0, 0.3))
    assert not (killed / "artifacts/latest").exists()
    assert run(server, killed, arguments).returncode == 0
    assert kept(killed) == kept(straight)


TRAINING_KILLS = 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_in_the_midst_of_a_training_it_goes_on_from_its_checkpoint_to_the_same_bytes(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    """A hospital's training in the second round is killed some steps after it began, and after it went on.

    All else is finished, from a study that nothing disturbed and that saved no checkpoint.
    """
    rules = ("federation.rounds=2", "federation.local_epochs=12", "federation.batch_size=4")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    assert run(server, straight, command(tiny_folder, *rules, "engine.checkpoint_minutes=null")).returncode == 0
    assert not list(straight.rglob("checkpoint"))
    shutil.copytree(straight, killed, symlinks=True)
    for path in killed.glob("artifacts/shared/update/[!.]*/update.json"):
        if json.loads(path.read_text())["round"] == 2:
            shutil.rmtree(path.parent)
    arguments, steps = command(tiny_folder, *rules, "engine.checkpoint_minutes=0"), [0]
    for _ in range(TRAINING_KILLS):
        steps.append(kill_in_training(killed, arguments, server, steps[-1] + 5))
    done = run(server, killed, arguments)
    assert done.returncode == 0
    ((step, all_steps),) = re.findall(r"round 2 hospital-\d: goes on from step (\d+) of (\d+), saved", done.stderr)
    assert steps[-1] == int(step) < int(all_steps)
    assert updates(killed) == updates(straight) and len(updates(killed)) == 6
    assert not list(killed.glob("artifacts/*/**/checkpoint/*"))


def kill_in_training(folder: Path, arguments: list[str], server: Server, least: int) -> int:
    """Kill a study once a training in its second round has saved so many steps; returns how many it had then."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, server, folder, arguments)
        while not running.done() and not (len(updates(folder)) >= 3 and steps_saved(folder) >= least):
            time.sleep(0.002)
        (process,) = psutil.Process(launcher().process.pid).children()
        process.kill()
        assert running.result().returncode == -signal.SIGKILL
    return steps_saved(folder)


def steps_saved(folder: Path) -> int:
    """The steps that the training with a checkpoint had taken; 0 without one."""
    for path in folder.glob("artifacts/hospitals/*/checkpoint/[!.]*/training.safetensors"):
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
            return int(file.get_tensor("counts")[0])
    return 0


def updates(folder: Path) -> dict[str, bytes]:
    """The adapters that hospitals sent, by their keys."""
    found = folder.glob("artifacts/shared/update/[!.]*/adapter_model.safetensors")
    return {path.parent.name: path.read_bytes() for path in found}


MACHINE_KILLS = 20
SCHEDULED: dict[str, dict[str, int]] = {
    "dataset": {"images": 10},
    "partition": {"hospitals": 2},
    "federation": {"rounds": 16},
    "evaluation": {"max_new_tokens": 4, "min_cell": 1, "reliance": 0, "saliency": 0},
}


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_kills_of_a_machines_processes_at_any_moment_change_nothing(
    server: Server, database: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Flow, worker or server is killed twenty times as a deployment's runs go on; each is started again."""
    straight, drawn = tmp_path / "straight", random.Random(3)
    straight.mkdir()
    settings = [f"{section}.{name}={value}" for section, given in SCHEDULED.items() for name, value in given.items()]
    words = [word for each in (f"model.name={tiny_folder}", *settings) for word in ("--set", each)]
    assert run(server, straight, [str(COMMAND), "run", *words]).returncode == 0
    folder = tmp_path / "machine"
    (folder / "prefect").mkdir(parents=True)
    machine = Machine(folder, Server(folder / "prefect", database), tiny_folder)
    most = made(straight) // MACHINE_KILLS
    try:
        asked = [machine.begin(SCHEDULED)]
        for _ in range(MACHINE_KILLS):
            wait_for(lambda: flows_of(machine), 300)
            folders = made(folder) + drawn.randint(0, most)
            wait_for(lambda: made(folder) >= folders or not flows_of(machine), 300)  # noqa: B023  # called at once
            time.sleep(drawn.uniform(0, 0.3))
            kill_one(machine, drawn.choice(("flow", "worker", "server")))
            if not flows_of(machine):
                asked.append(machine.begin(SCHEDULED))
        wait_for(lambda: "Completed" in map(machine.state, asked), 600)
        wait_for(lambda: not flows_of(machine), 300)
        assert kept(folder) == kept(straight)
    finally:
        machine.stop()


def flows_of(machine: Machine) -> list[psutil.Process]:
    """The processes in which a machine's flows run, those of a worker that is gone included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == machine.folder and "worker" not in process.cmdline():
                found.append(process)
    return found


def kill_one(machine: Machine, which: str) -> None:
    """Kill it and, but for a flow, start it again."""
    if which == "flow":
        for process in flows_of(machine):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_for(lambda: not flows_of(machine), 60)
    elif which == "worker":
        worker = machine.workers.pop()
        worker.kill()
        worker.wait()
        machine.start_worker()
    else:
        machine.server.kill()
        machine.server.start()
        machine.server.wait(300)
