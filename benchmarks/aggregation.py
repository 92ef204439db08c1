"""How fast updates become the next adapter, and in how much memory, by strategy.

    python -m benchmarks.aggregation [--hospitals N] [--layers N] [--only NAME ...]

Updates are files of float32 LoRA factors of rank 32, 38 layers of 4,096 by 4,096: 10 million numbers each. Each
strategy reads and aggregates them in a process of its own. Beside it stand a plain sum of the same files, tensor by
tensor in NumPy, and Flower's functions, which take all updates as arrays in memory. Seconds are the processor's: other
work on the machine does not count. What two ways make of the first layer must be the same, or the benchmark stops.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.figure import Figure, alone
from tasks.records.federation import ADAPTER_FILE
from tasks.store import peak_memory

HOSPITALS, LAYERS, RANK, WIDTH = 64, 38, 32, 4096
STRATEGIES = (
    "fedavg",
    "fedavgm",
    "fedadam",
    "fednova",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "geometric-median",
    "norm-bounded",
    "centered-clipping",
)
TURNS = 3
"""Of what is held against a target."""
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """What a way took, and the first layer's A that it made."""

    seconds: float
    """Of the processor, reading included."""
    before: int
    """Peak memory of the process before, in bytes: Python and its libraries."""
    peak: int
    """And after."""
    made: Numbers


def write_updates(folder: Path, hospitals: int, layers: int) -> None:
    """One adapter a hospital, steps of the size that LoRA's have; and the round's start, as hospital 0 of none."""
    import torch
    from safetensors.torch import save_file

    for number in tqdm(range(-1, hospitals), desc="writing updates", leave=False, disable=None):
        generator = torch.Generator().manual_seed(number + 1)
        shapes = {".lora_A.weight": (RANK, WIDTH), ".lora_B.weight": (WIDTH, RANK)}
        tensors = {
            f"layer{layer:02d}{end}": 0.01 * torch.randn(shape, generator=generator)
            for layer in range(layers)
            for end, shape in shapes.items()
        }
        place = folder / ("start" if number < 0 else f"{number:03d}")
        place.mkdir()
        save_file(tensors, place / ADAPTER_FILE)
        counts = {"hospital": place.name, "round": 1, "samples": 20 + number % 7, "loss": 0.5, "steps": 4, "base": ""}
        (place / "update.json").write_text(json.dumps(counts))


def timed(prepare: Callable[[], Callable[[], Numbers]]) -> Cost:
    """What a way costs; libraries are loaded before it begins."""
    body = prepare()
    before, began = peak_memory(), time.process_time()
    made = body()
    return Cost(time.process_time() - began, before, peak_memory(), np.array(made))


def places(folder: str) -> list[Path]:
    """The updates' folders."""
    return sorted(path for path in Path(folder).iterdir() if path.name != "start")


def plain_sum(folder: str) -> Cost:
    """The same bytes read and added up in float32, a file at a time: what memory allows."""

    def prepare() -> Callable[[], Numbers]:
        from safetensors.numpy import load_file

        def body() -> Numbers:
            total: dict[str, Numbers] = {}
            for place in places(folder):
                for name, tensor in load_file(place / ADAPTER_FILE).items():
                    if name in total:
                        total[name] += tensor
                    else:
                        total[name] = tensor.copy()
            return total[min(total)]

        return body

    return timed(prepare)


def ours(folder: str, name: str, byzantine: int, door: bool = False) -> Cost:
    """A strategy, from the files to the next state; with the door's checks before it, where asked."""

    def prepare() -> Callable[[], Numbers]:
        import scipy.spatial.distance  # noqa: F401

        from tasks.federate.door import Expected, admit
        from tasks.federate.state import ServerState, read_state, read_update
        from tasks.federate.strategies.strategy import choose
        from tasks.settings import StrategySettings

        settings = StrategySettings.model_validate({"strategy": name, "byzantine": byzantine})
        strategy, start = choose(settings), read_state(Path(folder) / "start").groups["adapter"]

        def body() -> Numbers:
            updates = [read_update(place, tensors=True) for place in places(folder)]
            if door:
                updates, _ = admit(
                    {each.hospital: each for each in updates}, Expected(1, "", {"adapter": start}, None), settings
                )
            made = strategy.aggregate(ServerState({"adapter": start}), updates).groups["adapter"]
            return made[min(made)].numpy()

        return body

    return timed(prepare)


def flower(folder: str, name: str, byzantine: int) -> Cost:
    """Flower's function of this name, reading included."""

    def prepare() -> Callable[[], Numbers]:
        from flwr.server.strategy import aggregate
        from safetensors.numpy import load_file

        functions: dict[str, Callable[[list[Any]], list[Numbers]]] = {
            "fedavg": aggregate.aggregate,
            "median": aggregate.aggregate_median,
            "trimmed-mean": lambda sent: aggregate.aggregate_trimmed_avg(sent, (byzantine + 0.5) / len(sent)),
            "krum": lambda sent: aggregate.aggregate_krum(sent, byzantine, 0),
        }

        def body() -> Numbers:
            sent = []
            for place in places(folder):
                samples = json.loads((place / "update.json").read_text())["samples"]
                tensors = load_file(place / ADAPTER_FILE)
                sent.append(([tensors[each] for each in sorted(tensors)], samples))
            return functions[name](sent)[0]

        return body

    return timed(prepare)


FLOWER = ("fedavg", "median", "trimmed-mean", "krum")
"""Its Bulyan runs its Krum as often as there are hospitals, which takes hours here."""


def check(name: str, mine: Cost, theirs: Cost) -> None:
    """Raises StudyError where the two ways make different numbers."""
    import torch

    from benchmarks.workload import check_close

    check_close(f"{name} of the first layer", torch.from_numpy(mine.made), torch.from_numpy(theirs.made), 1e-6)


def turns(folder: str, byzantine: int) -> tuple[list[Cost], list[Cost]]:
    """The plain sum and the mean, in turn."""
    pairs = [(alone(plain_sum, folder), alone(ours, folder, "fedavg", byzantine)) for _ in range(TURNS)]
    plain, mean = zip(*pairs, strict=True)
    return list(plain), list(mean)


def median_of(costs: Sequence[Cost]) -> Cost:
    """The one with the median of the seconds."""
    return sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]


def measure() -> Figure:
    """The mean's gigabytes a second beside those of the plain sum."""
    size = 4 * 2 * RANK * WIDTH * LAYERS * HOSPITALS / 1e9
    with TemporaryDirectory() as folder:
        write_updates(Path(folder), HOSPITALS, LAYERS)
        plain, mean = map(median_of, turns(folder, 1))
        check("fedavg", mean, alone(flower, folder, "fedavg", 1))
    notes = {"peak MB": round(mean.peak / 1e6), "peak MB before": round(mean.before / 1e6)}
    return Figure("aggregation", size / mean.seconds, size / plain.seconds, target=1 / 3, unit="GB/s", notes=notes)


def main() -> None:
    """Measure every strategy and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hospitals", type=int, default=HOSPITALS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--byzantine", type=int, default=6)
    parser.add_argument("--only", nargs="+", default=STRATEGIES, choices=STRATEGIES)
    given = parser.parse_args()
    console, size = Console(), 4 * 2 * RANK * WIDTH * given.layers * given.hospitals / 1e9
    table = Table(title=f"{given.hospitals} hospitals, {size / given.hospitals / 4 * 1e3:.2f} million numbers each")
    for heading in ("", "GB/s", "of the plain sum", "peak MB", "MB before", "Flower GB/s", "Flower peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    with TemporaryDirectory() as folder:
        write_updates(Path(folder), given.hospitals, given.layers)
        several, means = turns(folder, given.byzantine)
        plain = median_of(several)

        def row(name: str, cost: Cost, other: Cost | None = None) -> None:
            beside = [f"{size / other.seconds:.3f}", f"{other.peak / 1e6:.0f}"] if other else ["", ""]
            share = f"1/{cost.seconds / plain.seconds:.1f}"
            cells = (name, f"{size / cost.seconds:.3f}", share, f"{cost.peak / 1e6:.0f}", f"{cost.before / 1e6:.0f}")
            table.add_row(*cells, *beside)
            console.print(*cells, *beside, sep=" | ")

        row("plain sum", plain)
        ways: dict[str, Callable[[], Cost]] = {
            name: partial(alone, ours, folder, name, given.byzantine) for name in given.only if name != "fedavg"
        }
        for name in tqdm(given.only, desc="strategies", leave=False, disable=None):
            cost = median_of(means) if name == "fedavg" else ways[name]()
            other = alone(flower, folder, name, given.byzantine) if name in FLOWER else None
            if other:
                check(name, cost, other)
            row(name, cost, other)
        row("fedavg with the door", alone(ours, folder, "fedavg", given.byzantine, True))
    console.print(table)


if __name__ == "__main__":
    main()
