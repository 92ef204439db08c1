"""All figures of docs/benchmarks.md that need no GPU: `make bench`, or `python -m benchmarks [NAME ...]`.

Each benchmark runs in a process of its own, one after the other. The figures go to `artifacts/bench.json`; what else
was measured, the machine and the versions to `artifacts/bench_notes.json`. Nothing is written where a name is given.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console
from rich.table import Column, Table

from benchmarks.busy import Watch, verdict
from benchmarks.figure import Figure, alone
from benchmarks.workload import machine
from tasks.store import ROOT

NAMES = (
    "train_vs_published_loop",
    "train_vs_trainer",
    "whole_images",
    "evaluate_vs_one_by_one",
    "switch_vs_copy",
    "memory_vs_hospitals",
    "matmul_efficiency",
    "roofline",
    "aggregation",
)
console = Console()


def main(names: Sequence[str]) -> None:
    """Measure, print a table, and write what all benchmarks give."""
    environment, figures, busy = machine(), list[Figure](), list[float | None]()
    for name in names or NAMES:
        measure, watch = import_module(f"benchmarks.{name}").measure, Watch()
        figures.append(alone(measure))
        busy.append(watch.share())
        use = "unknown use of the cores by others" if busy[-1] is None else f"others used {busy[-1]:.0%} of the cores"
        console.print(f"{name}: ratio {figures[-1].ratio:.3g}, {watch.seconds:.0f} s, {use}")
    console.print(table(figures, busy))
    console.print_json(data=notes(figures, busy, environment))
    if not names:
        ROOT.mkdir(exist_ok=True)
        write("bench.json", [figure.to_json() for figure in figures])
        write("bench_notes.json", notes(figures, busy, environment))


def table(figures: Sequence[Figure], busy: Sequence[float | None]) -> Table:
    """The figures beside what products allow and their targets; no verdict where others used the cores."""
    headings = ("benchmark", "this project", "reference", "unit", "ratio", "ceiling", "reached", "target", "met")
    printed = Table(*(Column(heading, overflow="fold") for heading in headings))
    for figure, share in zip(figures, busy, strict=True):
        bound = "" if figure.target is None else f"{'at most' if figure.at_most else 'at least'} {figure.target:g}"
        numbers = (f"{figure.value:.1f}", f"{figure.reference:.1f}", figure.unit, f"{figure.ratio:.2f}")
        limits = [] if figure.ceiling is None else [f"{figure.ceiling:.1f}", f"{figure.reached:.2f}"]
        printed.add_row(figure.name, *numbers, *(limits or ["", ""]), bound, verdict(figure.met, share))
    return printed


def notes(figures: Sequence[Figure], busy: Sequence[float | None], environment: dict[str, object]) -> dict[str, object]:
    """Machine and versions, and what each benchmark told beside its figure."""
    told: dict[str, object] = {"machine": environment}
    for figure, share in zip(figures, busy, strict=True):
        found = {"share of the cores that others used": share} | dict(figure.notes)
        if figure.ceiling is not None:
            found |= {"largest ratio that products allow": figure.ceiling, "share of it": figure.reached}
        told[figure.name] = found
    return told


def write(name: str, value: object) -> None:
    """One JSON file in the artifacts folder."""
    (ROOT / name).write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
