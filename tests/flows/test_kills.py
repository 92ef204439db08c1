"""A study that is killed again and again, at any moment, ends in the bytes of one that nothing disturbed."""

import hashlib
import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import COMMAND, Server, launcher, run

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
