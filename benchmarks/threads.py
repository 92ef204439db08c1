"""Training with the threads that the program chooses, with one and with all, beside a process that takes one core.

    python -m benchmarks.threads

The embedded model trains an epoch of a drawn hospital with each in turn, first with nothing else that this benchmark
started, then beside the process. All must end with the same adapter, to the bit. The choice holds where its median is
no slower than that of one thread by more than single turns of one thread differ.
"""

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.busy import Watch
from benchmarks.figure import Figure
from benchmarks.workload import FEDERATION, SEED, Work, draw_work, drawn_state, in_turn, rate
from tasks.engine.batch import encode
from tasks.engine.cores import Threads, usable
from tasks.engine.train import train
from tasks.engine.vision import encode_images
from tasks.errors import StudyError

REPEATS = 3
CASES = 32
"""An epoch of them takes seconds with all cores where these are busy."""
ONE, ALL, CHOICE = "one thread", "all cores", "the choice"


def measure() -> Figure:
    """Samples by second with the choice and with one thread, both beside the process."""
    os.environ.pop("OMP_NUM_THREADS", None)  # the program would keep to it
    torch.set_num_threads(len(usable()))
    work = draw_work(most=CASES)
    ways = epochs(work)
    check_same(work, ways)
    notes: dict[str, Any] = {"cases": len(work.train), "cores": len(usable())}
    for title, beside in (("alone", nullcontext()), ("beside a process", taking_a_core())):
        watch = Watch()
        with beside:
            seconds = in_turn(ways, REPEATS, f"threads {title}")
        notes[f"{title}: median, least and most seconds"] = {name: told(each) for name, each in seconds.items()}
        notes[f"{title}: the choice holds"] = holds(seconds[CHOICE], seconds[ONE])
        notes[f"{title}: share of the cores that others used"] = watch.share()
    count = len(work.train)
    value, reference = rate(count, seconds[CHOICE]), rate(count, seconds[ONE])
    return Figure("threads", value, reference, target=None, unit="samples/s", notes=notes)


def epochs(work: Work) -> dict[str, Callable[[], None]]:
    """An epoch from the same adapter, with each number of threads."""
    base = work.engine.base
    features = encode_images(base, list(work.images.values()))
    examples = encode(base, features, work.train)
    threads = Threads()

    def epoch() -> None:
        work.engine.switch(drawn_state(work.engine))
        train(
            work.engine,
            features,
            examples,
            epochs=1,
            batch_size=FEDERATION.batch_size,
            tokens=FEDERATION.tokens_per_pass,
            learning_rate=FEDERATION.learning_rate,
            seed=SEED,
        )

    def fixed(number: int) -> None:
        torch.set_num_threads(number)
        epoch()

    def chosen() -> None:
        torch.set_num_threads(len(usable()))
        with threads.suited(base):
            epoch()

    return {ONE: lambda: fixed(1), ALL: lambda: fixed(len(usable())), CHOICE: chosen}


def check_same(work: Work, ways: Mapping[str, Callable[[], None]]) -> None:
    """Raise StudyError unless all ways end with the same adapter."""
    found = []
    for way in ways.values():
        way()
        found.append(work.engine.read())
    if not all(torch.equal(tensor, other[name]) for other in found[1:] for name, tensor in found[0].items()):
        raise StudyError(
            "Expected the same adapter with any number of threads, found another: the number may not be chosen freely; "
            "find the product that follows it."
        )


@contextmanager
def taking_a_core() -> Iterator[None]:
    """While open, a process computes without a pause."""
    process = get_context("spawn").Process(target=_compute, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _compute() -> None:
    while True:
        pass


def told(seconds: Sequence[float]) -> list[float]:
    """Median, least and most."""
    return [round(each, 2) for each in (statistics.median(seconds), min(seconds), max(seconds))]


def holds(choice: Sequence[float], one: Sequence[float]) -> bool:
    """Whether the choice's median is no slower than one thread's by more than turns of one thread differ."""
    return statistics.median(choice) - statistics.median(one) <= max(one) - min(one)


if __name__ == "__main__":
    print(measure())
