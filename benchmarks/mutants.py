"""Do the tests notice a broken line? The share of mutants that the fast tests kill: `make mutants`.

    python -m benchmarks.mutants [PER_PACKAGE] [SEED]

mutmut breaks the code of each package in every way that it knows, one at a time; of these mutants some are drawn, and
each is run through those of the fast tests that reach the function it is in (pyproject.toml: `tool.mutmut`). Printed
are the share killed of each package with its 95 % interval (Wilson), then the mutants that survived: see one with
`mutmut show NAME`. What mutmut wrote stays in `mutants/`; delete that folder once tests or code have changed.
"""

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy import stats

PACKAGES = ("answer", "audit", "compare", "engine", "explain", "federate", "partition", "report", "retrieve", "score")
FIRST = "tasks.federate.means.*"
"""A few mutants that are soon run: before them mutmut writes all others and learns which tests reach which function."""
KILLED = {"killed", "timeout"}
"""What counts as noticed; a mutant that no test reaches has survived."""


def mutate(names: Sequence[str]) -> None:
    """Run mutants through the tests, one after the other."""
    subprocess.run([Path(sys.executable).with_name("mutmut"), "run", "--max-children", "1", *names], check=True)


def known() -> dict[str, int | None]:
    """Every mutant that mutmut wrote, with the exit code that its tests gave; None where they were not run."""
    found: dict[str, int | None] = {}
    for path in sorted(Path("mutants/tasks").rglob("*.py.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def draw(names: Sequence[str], most: int, seed: int) -> dict[str, list[str]]:
    """By package, at most so many of its mutants."""
    by_package = {
        package: sorted(name for name in names if name.startswith(f"tasks.{package}.")) for package in PACKAGES
    }
    return {
        package: random.Random(f"{seed} {package}").sample(mutants, min(most, len(mutants)))
        for package, mutants in by_package.items()
    }


def table(drawn: Mapping[str, Sequence[str]], fate: Mapping[str, str], written: Sequence[str]) -> Table:
    """A row for each package, and one for all that were drawn."""
    printed = Table("package", "mutants", "drawn", "killed", "share", "95 %")
    rows = {**drawn, "all": [name for names in drawn.values() for name in names]}
    for package, names in rows.items():
        count = sum(package == "all" or name.startswith(f"tasks.{package}.") for name in written)
        killed = sum(fate[name] in KILLED for name in names)
        low, high = stats.binomtest(killed, len(names)).proportion_ci(method="wilson")
        share = f"{killed / len(names):.2f}", f"{low:.2f} to {high:.2f}"
        printed.add_row(package, str(count), str(len(names)), str(killed), *share)
    return printed


def main(most: int = 30, seed: int = 0) -> None:
    """Draw, run, and print."""
    from mutmut.stats import status_by_exit_code

    console = Console(width=120)
    mutate([FIRST])
    drawn = draw(list(known()), most, seed)
    mutate([name for names in drawn.values() for name in names])
    codes = known()
    fate = {name: status_by_exit_code[codes[name]] for names in drawn.values() for name in names}
    console.print(table(drawn, fate, list(codes)))
    for name, end in fate.items():
        if end not in KILLED:
            console.print(f"{end}: {name}", highlight=False)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
