"""How seconds and memory of each stage grow with hospitals, cases, retrieved cases, rounds and the library.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling [--axis NAME ...] [--most SIZE] [--turns N]

Of the first four axes, each point is a study of its own, in a process and a folder of its own with nothing cached, and
all but one setting is the same in an axis. Hospitals have eight images each, so a study of more hospitals has more
images. Manifests tell seconds and memory of each stage. A stage's memory is the most that the process had used when the
stage ended. The last axis builds libraries of random rows, opens them in another process, and searches 64 questions.

Seconds are the processor's, of all threads: other work on the machine does not count into them, but for the caches and
the memory that it takes away. The sizes take turns. The exponent of a stage is fitted to what it takes more than at the
smallest size (`benchmarks/growth.py`), in each turn by itself: the median is told, with the least and the most. A stage
grows faster than its size where the exponent is above 1.1 in every turn; none should. Nothing is told of a stage that
takes less than a tenth of a second more at the largest size than at the smallest.

Memory grows until what is computed at a time is full: a batch of images, a chunk of pairs of images in the audit. How
it grows with hospitals alone is measured by `benchmarks/memory_vs_hospitals.py`.

`artifacts/scaling.json` is written after each point; an axis that is measured anew takes the place of the former one.
All of it takes hours, and 4 GB of memory. Verdicts on seconds need a core with nothing else on it.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from unittest import mock

from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from benchmarks.busy import BUSY, Watch
from benchmarks.figure import alone
from benchmarks.growth import of_turns, worse_than_linear
from tasks.store import ROOT, peak_memory
from tasks.store.manifest import MANIFEST

RESULT = "scaling.json"
WHOLE = "the whole study"
LEAST = 0.1
"""Seconds that a stage must grow by."""
CASES_OF_AN_IMAGE, SITES = 5.6, 4
"""Of the embedded dataset."""
COMMON: dict[str, object] = {
    "dataset.images": 8,
    "partition.hospitals": 4,
    "partition.scheme": "iid",
    "federation.rounds": 1,
    "evaluation.reliance": 5,
    "evaluation.examined": 2,
    "evaluation.saliency": 1,
}
"""Settings of every study, but for the one that its axis changes."""

Point = dict[str, dict[str, float]]
"""By stage, its `seconds` and `peak_memory_bytes`."""
Points = dict[int, list[Point]]
"""By size, what was measured in each turn."""


@dataclass(frozen=True)
class Axis:
    """One size that is varied."""

    sizes: tuple[int, ...]
    measure: Callable[[int], Point]


def hospitals(count: int) -> Point:
    """A study of so many hospitals, with the same number of images each."""
    return study({"partition.hospitals": count, "dataset.images": 8 * count // SITES})


def cases(count: int) -> Point:
    """A study of about so many cases, none of which are retrieved."""
    return study({"dataset.images": round(count / CASES_OF_AN_IMAGE / SITES), "retrieval.k": 0})


def retrieved(count: int) -> Point:
    """A study that shows so many retrieved cases."""
    return study({"retrieval.k": count, "dataset.images": 24})


def rounds(count: int) -> Point:
    """A study of so many rounds."""
    return study({"federation.rounds": count})


def library(count: int) -> Point:
    """A library of so many random rows, built and searched in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        return alone(build, folder, count) | alone(search, folder, count)


AXES = {
    "hospitals": Axis((2, 4, 8, 16, 32, 64), hospitals),
    "cases": Axis((1_000, 3_000, 10_000, 30_000, 100_000), cases),
    "retrieved": Axis((0, 1, 3, 10), retrieved),
    "rounds": Axis((1, 2, 4, 8), rounds),
    "library": Axis((1_000, 10_000, 100_000, 300_000, 1_000_000), library),
}


def study(changes: Mapping[str, object]) -> Point:
    """What the stages of a study took, and the whole of it, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return alone(run, folder, COMMON | dict(changes))


def run(folder: str, settings: Mapping[str, object]) -> Point:
    """Run a study; stages note the processor's seconds instead of the clock's."""
    from flows.cli.settings_file import load_study
    from flows.cli.terminal import flow_running
    from tasks.store import folders

    os.chdir(folder)
    chosen = load_study(None, tuple(f"{name}={json.dumps(value)}" for name, value in settings.items()))
    with flow_running(quiet=True), mock.patch.object(folders, "time", SimpleNamespace(perf_counter=time.process_time)):
        from flows.fed_rag import fed_rag

        fed_rag(chosen)
    return of_manifests(ROOT) | {WHOLE: used()}


def of_manifests(root: Path) -> Point:
    """Of each stage with folders below `root`, the sum of its seconds, and the most memory when it ended."""
    found: Point = {}
    for path in sorted(root.rglob(MANIFEST)):
        manifest, stage = json.loads(path.read_text(encoding="utf-8")), path.parts[-3]
        if stage != "runs":
            known = found.setdefault(stage, {"seconds": 0.0, "peak_memory_bytes": 0})
            known["seconds"] += manifest["seconds"]
            known["peak_memory_bytes"] = max(known["peak_memory_bytes"], manifest["peak_memory_bytes"])
    return found


def build(folder: str, count: int) -> Point:
    """Build and write a library of so many rows."""
    from benchmarks.retrieval_speed import unit_rows
    from tasks.records import Case
    from tasks.retrieve.library import build_library
    from tasks.store import writing

    os.chdir(folder)
    rows = unit_rows(count, 1)
    known = [Case(f"c{n}", f"i{n}", "really?", "yes", "closed", "train", "d", "en") for n in range(count)]
    with timed("library: build") as built:
        made = build_library(rows, known)
    with timed("library: write") as written, writing("hospitals/h", "library", "k") as sink:
        made.write(sink.path)
    return built | written


def search(folder: str, count: int) -> Point:
    """Open the library, and search 64 questions at once, each about an image that it holds."""
    from benchmarks.retrieval_speed import BATCH, DEPTH, unit_rows
    from tasks.records import Case
    from tasks.retrieve.library_folder import open_library

    os.chdir(folder)
    asked = [Case("q", f"i{n}", "really?", "", "closed", "test", "d", "en") for n in range(BATCH)]
    with timed("library: open") as opened:
        made = open_library(ROOT / "hospitals/h/library/k")
    with timed("library: search") as searched:
        made.search(unit_rows(BATCH, 2), asked, DEPTH)
    return opened | searched


@contextmanager
def timed(stage: str) -> Iterator[Point]:
    """Measure a block of code as a stage, which is in the mapping afterwards."""
    found: Point = {}
    start = time.process_time()
    yield found
    found[stage] = used(start)


def used(start: float = 0.0) -> dict[str, float]:
    """What this process has used until now: seconds of the processor since a time of its own, and memory at most."""
    return {"seconds": time.process_time() - start, "peak_memory_bytes": peak_memory()}


def main() -> None:
    """Measure the axes that are asked for, or all, and print what grows."""
    parser = argparse.ArgumentParser(description="How seconds and memory grow.")
    parser.add_argument("--axis", action="append", choices=list(AXES), help="one of them; all where not given")
    parser.add_argument("--most", type=int, help="the largest size measured")
    parser.add_argument("--turns", type=int, default=3, help="how often each size is measured")
    asked = parser.parse_args()
    console = Console()
    for name in asked.axis or AXES:
        sizes = [size for size in AXES[name].sizes if asked.most is None or size <= asked.most]
        found, watch = dict[int, list[Point]]((size, []) for size in sizes), Watch()
        plan = [size for _ in range(asked.turns) for size in sizes]
        for size in (bar := tqdm(plan, desc=name, unit="point", disable=None)):
            bar.set_postfix_str(f"{size:,}")
            found[size].append(AXES[name].measure(size))
            keep(name, found, watch.share())
        console.print(table(name, found))
        console.print(verdict(name, found, watch.share()) + "\n")


def keep(name: str, points: Points, others: float | None) -> None:
    """Write what was measured of an axis so far beside the other axes."""
    path = ROOT / RESULT
    ROOT.mkdir(exist_ok=True)
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[name] = {"share of the cores that others used": others, "points": points}
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def seconds(points: Points, stage: str) -> list[list[float]]:
    """The seconds of a stage in each turn that is complete, by size."""
    turns = zip(*(points[size] for size in points), strict=False)
    return [[turn.get(stage, {}).get("seconds", 0.0) for turn in each] for each in turns]


def exponents(points: Points, stage: str) -> tuple[float, ...]:
    """The exponent of a stage's seconds in each turn, ascending; none where it does not grow."""
    return of_turns(list(points), seconds(points, stage), LEAST)


def megabytes(points: Points, stage: str, size: int) -> float:
    """The median of a stage's peaks at one size."""
    return median(each[stage]["peak_memory_bytes"] / 1e6 for each in points[size] if stage in each)


def table(name: str, points: Points) -> Table:
    """Seconds and memory of each stage that takes a hundredth of the study, at the smallest and at the largest size."""
    first, last = min(points), max(points)
    headings = (
        "stage",
        f"s at {first:,}",
        f"s at {last:,}",
        "exponent",
        "turns",
        f"MB at {first:,}",
        f"MB at {last:,}",
    )
    printed = Table(*(Column(heading, overflow="fold") for heading in headings), title=name)
    costs = {stage: [median(each) for each in zip(*seconds(points, stage), strict=True)] for stage in points[last][-1]}
    for stage, (least, *_, most) in sorted(costs.items(), key=lambda each: -each[1][-1]):
        if most > max(map(max, costs.values())) / 100:
            found = exponents(points, stage)
            told = (f"{median(found):.2f}", f"{found[0]:.2f} to {found[-1]:.2f}") if found else ("-", "-")
            peaks = (f"{megabytes(points, stage, size):.0f}" for size in (first, last))
            printed.add_row(stage, f"{least:.2f}", f"{most:.2f}", *told, *peaks)
    return printed


def verdict(name: str, points: Points, others: float | None) -> str:
    """Which stages grow faster than the size, if any; no verdict on busy cores, nor from a single turn.

    What a study takes beside its stages, such as imports, does not grow, but varies more than many a stage takes.
    """
    stages = [stage for stage in points[max(points)][-1] if stage != WHOLE]
    worse = [stage for stage in stages if worse_than_linear(exponents(points, stage))]
    told = "worse than linear: " + (", ".join(worse) or "no stage")
    if others is None or others > BUSY:
        use = "an unknown share" if others is None else f"{others:.0%}"
        told = f"no verdict, since others used {use} of the cores; as it was measured, {told}"
    elif len(seconds(points, WHOLE)) < 2:
        told = f"no verdict from a single turn; as it was measured, {told}"
    return f"{name}: {told}"


if __name__ == "__main__":
    main()
