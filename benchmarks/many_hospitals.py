"""Whole studies of many hospitals: seconds per hospital, the coordinator's memory, task runs, and files.

    python -m benchmarks.many_hospitals [HOSPITALS ...] [--rounds N] [--asked N]

Each study is `fed-rag run` in a new folder and a process of its own, with the embedded base on the CPU. A hospital has
three training images and a test image of coarse noise, with two questions each; each round asks the same number of
hospitals. A stage's seconds are those of its folders' manifests. Seconds outside stages are Prefect's, and what reads
and writes references, tables and pages. The audit of copies is left out of a hospital's seconds: it compares images
with each other, however these are dealt.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import PIL.Image
from prefect.client.orchestration import get_client
from rich.console import Console
from rich.table import Table

from flows.server import use_prefect_server

HOSPITALS = (10, 100, 300, 1000)
IMAGES = 4
"""Of each hospital; the last one is its test image."""
ASKED = (("is there a mass?", "yes", "no"), ("where is it?", "left", "right"))
SETTINGS = (
    "dataset.name=table", "dataset.root=data", "partition.scheme=organ", "model.device=cpu",
    "evaluation.max_new_tokens=4", "evaluation.min_cell=1", "evaluation.reliance=0", "evaluation.saliency=0",
)  # fmt: skip
AUDITS = ("audit", "audit-control")
MB = 2**20


@dataclass(frozen=True)
class Cost:
    """What a study took."""

    hospitals: int
    seconds: float
    """Of the whole command."""
    stages: dict[str, tuple[int, float]]
    """By stage, its folders and their seconds."""
    peak: int
    """Memory of the command's process, which is coordinator and hospitals at once, in bytes."""
    task_runs: int
    files: int
    size: int
    """Bytes of all files."""


def study(hospitals: int, rounds: int, asked: int) -> Cost:
    """Run a study in a folder that is removed afterwards."""
    numbers = {"partition.hospitals": hospitals, "federation.rounds": rounds}
    numbers["federation.participants"] = min(asked, hospitals)
    settings = [*SETTINGS, *(f"{name}={number}" for name, number in numbers.items())]
    words = ["run", *(word for each in settings for word in ("--set", each))]
    before, began = task_runs(), time.perf_counter()
    with TemporaryDirectory() as folder:
        write_table(Path(folder, "data"), hospitals)
        command = [sys.executable, "-c", "from flows.cli.main import main; main()", *words]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the study of {hospitals} hospitals failed")
        took = time.perf_counter() - began
        files = [path for path in Path(folder, "artifacts").rglob("*") if path.is_file() and not path.is_symlink()]
        size, stages = sum(path.stat().st_size for path in files), seconds_of(files)
    return Cost(hospitals, took, stages, usage.ru_maxrss * 1024, task_runs() - before, len(files), size)


def write_table(folder: Path, hospitals: int) -> None:
    """The cases of all hospitals; each one's have an organ of their own, by which they are dealt."""
    folder.mkdir()
    random, rows = np.random.default_rng(0), list[dict[str, object]]()
    for number in range(hospitals * IMAGES):
        sink, pixels = io.BytesIO(), random.integers(0, 256, (8, 8), dtype=np.uint8)
        PIL.Image.fromarray(pixels).resize((112, 112)).save(sink, "PNG")
        common = {"organ": f"organ {number // IMAGES}", "modality": "CT"}
        common["split"] = "test" if number % IMAGES == IMAGES - 1 else "train"
        for question, *answers in ASKED:
            image = {"bytes": sink.getvalue(), "path": None}
            rows.append(common | {"image": image, "question": question, "answer": answers[number % 2]})
    pd.DataFrame(rows).to_parquet(folder / "cases.parquet")


def seconds_of(files: list[Path]) -> dict[str, tuple[int, float]]:
    """By stage, how many folders it made and their seconds."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in files:
        if path.name == "manifest.json" and path.parent.parent.name != "runs":
            found[path.parent.parent.name].append(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    return {name: (len(each), sum(each)) for name, each in sorted(found.items())}


def task_runs() -> int:
    """How many task runs the server has recorded, once it records no more."""
    with get_client(sync_client=True) as client:
        found, before = -1, -2
        while found != before:
            time.sleep(10)
            before, found = found, client._client.post("/task_runs/count", json={}).json()
    return found


def show(costs: list[Cost]) -> None:
    """Print a row for each study, and one for each stage that hospitals have."""
    console = Console(width=160)
    whole = Table(title="Studies")
    headings = (
        "hospitals",
        "seconds",
        "without audit",
        "outside stages",
        "a hospital",
        "peak MB",
        "task runs",
        "files",
    )
    for heading in (*headings, "MB on disk"):
        whole.add_column(heading, justify="right")
    for cost in costs:
        audits = sum(cost.stages.get(name, (0, 0.0))[1] for name in AUDITS)
        within = sum(seconds for _, seconds in cost.stages.values())
        left = cost.seconds - audits
        figures = (f"{cost.seconds:.0f}", f"{left:.0f}", f"{cost.seconds - within:.0f}", f"{left / cost.hospitals:.2f}")
        sizes = (f"{cost.peak / MB:.0f}", f"{cost.task_runs}", f"{cost.files}", f"{cost.size / MB:.0f}")
        whole.add_row(str(cost.hospitals), *figures, *sizes)
    console.print(whole)
    each = Table(title="Milliseconds for each folder of a stage (folders)")
    each.add_column("stage")
    for cost in costs:
        each.add_column(f"{cost.hospitals} hospitals", justify="right")
    for name in sorted({name for cost in costs for name in cost.stages}):
        cells = [cost.stages.get(name) for cost in costs]
        each.add_row(name, *(f"{1000 * cell[1] / cell[0]:.0f} ({cell[0]})" if cell else "-" for cell in cells))
    console.print(each)


def main() -> None:
    """Measure each number of hospitals, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hospitals", nargs="*", type=int, default=list(HOSPITALS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--asked", type=int, default=20, help="hospitals that each round asks")
    given = parser.parse_args()
    use_prefect_server()
    costs = []
    for hospitals in given.hospitals:
        costs.append(study(hospitals, given.rounds, given.asked))
        show(costs[-1:])
    show(costs)


if __name__ == "__main__":
    main()
