"""How much sooner a study ends on more workers (`engine.runner=dask`): 1 and 2 on this machine, 8 and 64 by simulation.

    python -m benchmarks.cluster [SETTING=VALUE ...]

The study runs once with each number of workers, in a process and a folder of its own, with one thread a worker. What it
needs of the machine: a free core for each worker.

The simulation takes the seconds of each stage from the manifests of the run with one worker. What stages wait for
follows from their inputs: a level of the graph of folders begins when the one before has ended. Within a level each
hospital stays at its worker, as it does on a cluster. What is left of the measured time (the cluster's start, Prefect,
reports) is taken not to shrink. With more workers than hospitals, the measured hospitals stand for as many as there are
workers, and one worker would take them in turn.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.busy import BUSY, Watch

HOSPITALS = 8
LEFT_OUT = ("evaluation.reliance=0", "evaluation.saliency=0")
SETTINGS = (
    f"partition.hospitals={HOSPITALS}",
    "partition.scheme=iid",
    "dataset.images=60",
    "federation.rounds=2",
    *LEFT_OUT,
)
MEASURED, SIMULATED = (1, 2), (2, 8, 64)
Level = list[list[float]]
"""For each stage of a level, the seconds of its folders: one for each hospital, or one in all."""


def main(settings: Sequence[str]) -> None:
    """Measure, simulate, and print both."""
    seconds, watch = dict[int, float](), Watch()
    with TemporaryDirectory() as folder:
        for workers in MEASURED:
            seconds[workers] = run(Path(folder) / str(workers), workers, (*SETTINGS, *settings))
        stages = levels(manifests(Path(folder) / "1" / "artifacts"))
    table = Table("workers", "hospitals", "seconds", "speed-up", "", title="A study on a Dask cluster")
    for workers in MEASURED:
        table.add_row(*row(workers, HOSPITALS, seconds[workers], seconds[1]), "measured")
    rest = seconds[1] - span(stages, 1)
    for workers in SIMULATED:
        hospitals = max(workers, HOSPITALS)
        several = [[spread(each, hospitals) for each in level] for level in stages]
        table.add_row(*row(workers, hospitals, rest + span(several, workers), rest + span(several, 1)), "simulated")
    console, others = Console(), watch.share()
    console.print(table)
    console.print(f"Of the measured seconds with one worker, {rest:.0f} are no stage's.")
    if others is None or others > BUSY:
        share = "an unknown share" if others is None else f"{others:.0%}"
        console.print(f"No verdict: others used {share} of the cores meanwhile.")


def row(workers: int, hospitals: int, seconds: float, alone: float) -> tuple[str, str, str, str]:
    """The figures of one number of workers, beside the seconds of one alone with as many hospitals."""
    return str(workers), str(hospitals), f"{seconds:.0f}", f"{alone / seconds:.2f}"


def run(folder: Path, workers: int, settings: Sequence[str]) -> float:
    """Seconds of a study in a new folder."""
    folder.mkdir()
    chosen = (*settings, "engine.runner=dask", f"engine.workers={workers}")
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "run"]
    command += [word for each in chosen for word in ("--set", each)]
    environment = os.environ | {"PREFECT_HOME": str(folder / "prefect"), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


Manifests = Mapping[str, Mapping[str, object]]


def manifests(artifacts: Path) -> Manifests:
    """By path, the manifests of all stages' folders."""
    return {
        path.parent.relative_to(artifacts).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for area in ("source", "shared", "hospitals")
        for path in sorted((artifacts / area).rglob("manifest.json"))
    }


def levels(found: Manifests) -> list[Level]:
    """The stages' seconds by level: a folder is one level above the highest of its inputs."""
    depths: dict[str, int] = {}

    def depth(path: str) -> int:
        if path not in depths:
            inputs = found[path]["inputs"]
            assert isinstance(inputs, list)
            depths[path] = 1 + max((depth(each) for each in inputs if each in found), default=-1)
        return depths[path]

    together: dict[tuple[int, str], list[float]] = {}
    for path, manifest in found.items():
        together.setdefault((depth(path), path.split("/")[-2]), []).append(float(str(manifest["seconds"])))
    deepest = max(depths.values(), default=-1)
    return [[each for (level, _), each in sorted(together.items()) if level == height] for height in range(deepest + 1)]


def spread(seconds: Sequence[float], hospitals: int) -> list[float]:
    """A stage's seconds with as many hospitals: the measured ones stand for others; one that runs once stays alone."""
    return list(seconds) if len(seconds) == 1 else list(islice(cycle(seconds), hospitals))


def span(stages: Sequence[Level], workers: int) -> float:
    """Seconds from the beginning to the end of all levels: each waits for the worker that has most to do."""
    return sum(max(sum(each[worker::workers]) for worker in range(workers)) for level in stages for each in level)


if __name__ == "__main__":
    main(sys.argv[1:])
