"""How far a training step and an answering batch are from what the machine allows.

    OMP_NUM_THREADS=1 python -m benchmarks.roofline [BASE]

The seconds are split into parts:

- **matrix products**: each in the quicker of torch's two ways for its shape, alone and in the cache (`limit.py`);
- **memory traffic**: the bytes of all other operators (`traffic.py`), at the speed of a large copy here;
- **the rest**: products that are slower within the step, arithmetic that is slower than memory, attention's softmax,
  Python.

The first two by all seconds is the share of the roofline that is reached. It is no strict bound: most of these bytes
are in a cache and travel faster than in memory, and an operator that takes fewer seconds than its bytes would there
makes up for another one. Operators are also timed one by one, in a run of their own that is a little slower.

Steps, products and copies are measured in turn, and medians are told. With one thread, seconds are the processor's,
into which other work on the machine does not count, but for the caches and the memory that it takes away; with several
they are the clock's. BASE is a preset or a folder, or else the embedded base, for which 3 GB of memory are enough. A
verdict needs a core for each thread with nothing else on it. The result is written to `artifacts/roofline.json`.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from benchmarks.busy import Watch, verdict
from benchmarks.figure import Figure
from benchmarks.limit import operations, quickest
from benchmarks.traffic import Meter
from benchmarks.workload import EVALUATION, FEDERATION, draw_work, drawn_state, machine
from tasks.engine.base import load_base
from tasks.engine.batch import encode
from tasks.engine.generate import generate
from tasks.engine.train import train
from tasks.engine.vision import encode_images
from tasks.store import ROOT

CASES, REPEATS, SHOWN = 32, 5, 12
TARGET = 0.75
"""Share of the roofline."""
LARGE = 2**28
"""Bytes of the copy that shows the memory's speed: far more than a cache holds."""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """What is measured."""

    name: str
    run: Callable[[], object]
    units: int = 1
    """How many steps or batches a run has."""


@dataclass(frozen=True)
class Operator:
    """All calls of one of torch's operators in a step or a batch."""

    name: str
    calls: float
    seconds: float
    bound: float
    """Seconds of its products or its bytes."""

    @property
    def beyond(self) -> float:
        """Seconds beyond its bound."""
        return self.seconds - self.bound


@dataclass(frozen=True)
class Split:
    """The seconds of a step or a batch, and of its parts."""

    name: str
    seconds: float
    products: float
    """Seconds of matrix products."""
    memory: float
    """Seconds of the traffic of all other operators."""
    gflop: float
    """Of matrix products."""
    gigabytes: float
    """Of all other operators."""
    turns: tuple[float, ...]
    """The share of the roofline in single turns."""
    operators: tuple[Operator, ...]
    """Those furthest from their bounds first."""

    @property
    def rest(self) -> float:
        """Seconds that neither products nor traffic account for."""
        return self.seconds - self.products - self.memory

    @property
    def reached(self) -> float:
        """Share of the roofline."""
        return (self.products + self.memory) / self.seconds

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return asdict(self) | {"rest": self.rest, "reached": self.reached}


def measure() -> Figure:
    """Milliseconds of a training step of the embedded model that the roofline allows; the notes have answering."""
    training, answering = measure_base("embedded")
    return Figure(
        "roofline",
        1000 * (training.products + training.memory),
        1000 * training.seconds,
        target=TARGET,
        unit="ms a step",
        notes={each.name: each.to_json() for each in (training, answering)},
    )


def measure_base(name: str) -> list[Split]:
    """A training step and an answering batch with one base; features are computed and texts tokenised before."""
    drawn = draw_work(base=load_base(name, device="cpu"), most=CASES)
    engine, state = drawn.engine, drawn_state(drawn.engine)
    features = encode_images(engine.base, list(drawn.images.values()))
    training, questions = (encode(engine.base, features, each) for each in (drawn.train, drawn.test))

    def epoch() -> None:
        how: dict[str, Any] = {"batch_size": FEDERATION.batch_size, "tokens": FEDERATION.tokens_per_pass}
        train(engine, features, training, epochs=1, learning_rate=FEDERATION.learning_rate, seed=0, **how)

    def answer() -> None:
        engine.switch(state)  # after another training, answers may have other lengths
        tokens, most = EVALUATION.tokens_per_pass, EVALUATION.max_new_tokens
        generate(engine, features, questions, tokens=tokens, max_new_tokens=most)

    steps = len(training) // FEDERATION.batch_size
    return [
        split(Work(f"training step of {FEDERATION.batch_size} cases", epoch, steps)),
        split(Work(f"answering {len(questions)} questions", answer)),
    ]


def split(work: Work) -> Split:
    """Measure work and its parts in turn."""
    work.run()  # what the first call makes ready is not counted
    turns = [one_turn(work) for _ in tqdm(range(REPEATS), desc=work.name, unit="turn", leave=False, disable=None)]
    meter, units = turns[-1].meter, work.units
    operators = (
        Operator(
            name,
            calls / units,
            median(turn.meter.seconds[name] for turn in turns) / units,
            median(turn.bounds[name] for turn in turns) / units,
        )
        for name, calls in meter.calls.items()
    )
    return Split(
        work.name,
        seconds=median(turn.seconds for turn in turns) / units,
        products=median(turn.products for turn in turns) / units,
        memory=median(turn.memory for turn in turns) / units,
        gflop=sum(count * operations(each) for each, count in meter.products.items()) / 1e9 / units,
        gigabytes=sum(meter.bytes.values()) / 1e9 / units,
        turns=tuple((turn.products + turn.memory) / turn.seconds for turn in turns),
        operators=tuple(sorted(operators, key=lambda each: -each.beyond)),
    )


@dataclass(frozen=True)
class Turn:
    """A run of some work, one with each operator counted, and the seconds that this machine allows for each."""

    seconds: float
    meter: Meter
    bounds: dict[str, float]
    """By operator."""

    @property
    def products(self) -> float:
        """Seconds of matrix products."""
        return sum(self.bounds[name] for name in self.meter.products_of)

    @property
    def memory(self) -> float:
        """Seconds of the traffic of all other operators."""
        return sum(self.bounds[name] for name in self.meter.bytes)


def one_turn(work: Work) -> Turn:
    """Run and count once, then time the products alone, and a copy."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = seconds_of(work.run, clock)
    with Meter(clock) as meter:
        work.run()
    alone = {product: quickest(product, clock) for product in meter.products}
    computed = {
        name: sum(count * alone[each] for each, count in products.items())
        for name, products in meter.products_of.items()
    }
    speed = bandwidth(clock)
    return Turn(seconds, meter, computed | {name: moved / speed for name, moved in meter.bytes.items()})


def seconds_of(run: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call."""
    start = clock()
    run()
    return clock() - start


def bandwidth(clock: Clock) -> float:
    """Bytes by second, read and written, of a copy of `LARGE` bytes; the median of three."""
    source, sink = torch.ones(LARGE, dtype=torch.uint8), torch.zeros(LARGE, dtype=torch.uint8)
    return 2 * LARGE / median(seconds_of(lambda: sink.copy_(source), clock) for _ in range(3))


def main(names: Sequence[str]) -> None:
    """Measure, print the tables, and write the result."""
    name, watch, environment, console = names[0] if names else "embedded", Watch(), machine(), Console()
    found = measure_base(name)
    share = watch.share()
    for each in found:
        console.print(parts_table(each))
        console.print(operators_table(each))
        least, most = min(each.turns), max(each.turns)
        console.print(f"{each.reached:.2f} of the roofline (single turns {least:.2f} to {most:.2f})")
        console.print(f"target: {TARGET:g}; met: {verdict(each.reached >= TARGET, share)}\n")
    console.print("unknown use of the cores by others" if share is None else f"others used {share:.0%} of the cores")
    told = {"base": name, "machine": environment, "share of the cores that others used": share, "target": TARGET}
    document = told | {"work": [each.to_json() for each in found]}
    ROOT.mkdir(exist_ok=True)
    (ROOT / "roofline.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def parts_table(found: Split) -> Table:
    """The parts of a step or a batch."""
    printed = Table("part", "how much", "ms", "share", title=found.name)
    for part, much, seconds in (
        ("matrix products", f"{found.gflop:.3g} GFLOP", found.products),
        ("memory traffic of all else", f"{found.gigabytes:.3g} GB", found.memory),
        ("the rest", "", found.rest),
        ("measured", "", found.seconds),
    ):
        printed.add_row(part, much, f"{1000 * seconds:.1f}", f"{seconds / found.seconds:.2f}")
    return printed


def operators_table(found: Split) -> Table:
    """Where the most seconds beyond the bounds go."""
    headings = (Column("operator", overflow="fold"), "calls", "ms", "bound, ms", "beyond, ms")
    printed = Table(*headings, title=f"{found.name}: operators furthest from their bounds")
    for each in found.operators[:SHOWN]:
        numbers = (1000 * value for value in (each.seconds, each.bound, each.beyond))
        printed.add_row(each.name, f"{each.calls:.0f}", *(f"{number:.2f}" for number in numbers))
    return printed


if __name__ == "__main__":
    main(sys.argv[1:])
