"""All figures of docs/benchmarks.md that need no GPU: `make bench`, or `python -m benchmarks [NAME ...]`.

Each benchmark runs in a process of its own, one after the other. The figures go to `artifacts/bench.json`; what else
was measured, the machine and the versions to `artifacts/bench_notes.json`. Nothing is written where a name is given.
"""

import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console
from rich.table import Table

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
    "aggregation",
)
console = Console()


def main(names: Sequence[str]) -> None:
    """Measure, print a table, and write what all benchmarks give."""
    environment, figures = machine(), []
    for name in names or NAMES:
        started = time.perf_counter()
        figures.append(alone(import_module(f"benchmarks.{name}").measure))
        console.print(f"{name}: ratio {figures[-1].ratio:.3g}, {time.perf_counter() - started:.0f} s")
    console.print(table(figures))
    console.print_json(data=notes(figures, environment))
    if not names:
        ROOT.mkdir(exist_ok=True)
        write("bench.json", [figure.to_json() for figure in figures])
        write("bench_notes.json", notes(figures, environment))


def table(figures: Sequence[Figure]) -> Table:
    """The figures beside their targets."""
    printed = Table("benchmark", "this project", "reference", "unit", "ratio", "target", "met")
    for figure in figures:
        bound = "" if figure.target is None else f"{'at most' if figure.at_most else 'at least'} {figure.target:g}"
        met = {True: "yes", False: "no", None: ""}[figure.met]
        numbers = (f"{figure.value:.1f}", f"{figure.reference:.1f}", figure.unit, f"{figure.ratio:.2f}")
        printed.add_row(figure.name, *numbers, bound, met)
    return printed


def notes(figures: Sequence[Figure], environment: dict[str, object]) -> dict[str, object]:
    """Machine and versions, and what each benchmark told beside its figure."""
    return {"machine": environment, **{figure.name: dict(figure.notes) for figure in figures}}


def write(name: str, value: object) -> None:
    """One JSON file in the artifacts folder."""
    (ROOT / name).write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
