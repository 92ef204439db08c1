"""How much of what `torch.matmul` reaches is left in training.

    python -m benchmarks.matmul_efficiency

The matrix products of an epoch are recorded as they run, with their shapes and layouts: those of linear layers, and of
attention, which computes them in one kernel (two forward; four backward, not counting those done again). Their
floating-point operations by the epoch's seconds are held against the same by the seconds that `torch.matmul` takes for
them one after the other, each with its operands in the cache.
"""

import statistics
import time

from benchmarks.figure import Figure
from benchmarks.limit import Recorder, onednn, operations, seconds_of
from benchmarks.workload import FEDERATION, Work, draw_work, drawn_state
from tasks.engine.batch import encode
from tasks.engine.train import train
from tasks.engine.vision import Features, encode_images

REPEATS = 5
LARGE = 2048
"""Edge of the square matrices that show what the machine can do at best."""


def measure() -> Figure:
    """GFLOP/s of training and of its matrix products alone."""
    work = draw_work()
    features = encode_images(work.engine.base, list(work.images.values()))
    with Recorder() as recorder:
        epoch(work, features)
    total = sum(count * operations(product) for product, count in recorder.products.items())
    spent, alone = [], []
    for _ in range(REPEATS):
        spent.append(epoch(work, features))
        alone.append(sum(count * seconds_of(product) for product, count in recorder.products.items()))
    square = ((LARGE, LARGE), (LARGE, 1))
    best = min(seconds_of((square, square)) for _ in range(REPEATS))
    by_onednn = min(seconds_of((square, square), onednn) for _ in range(REPEATS))
    training, products = statistics.median(spent), statistics.median(alone)
    return Figure(
        "matmul_efficiency",
        total / training / 1e9,
        total / products / 1e9,
        target=None,
        unit="GFLOP/s",
        notes={
            "cases": len(work.train),
            "samples/s": len(work.train) / training,
            "samples/s if only the products took time": len(work.train) / products,
            f"GFLOP/s of {LARGE} x {LARGE} matrices": operations((square, square)) / best / 1e9,
            "GFLOP/s of the same through oneDNN": operations((square, square)) / by_onednn / 1e9,
        },
    )


def epoch(work: Work, features: Features) -> float:
    """Seconds of training on all cases once."""
    base = work.engine.base
    work.engine.switch(drawn_state(work.engine))
    examples = encode(base, features, work.train)
    start = time.perf_counter()
    train(
        work.engine,
        features,
        examples,
        epochs=1,
        batch_size=FEDERATION.batch_size,
        tokens=FEDERATION.tokens_per_pass,
        learning_rate=FEDERATION.learning_rate,
        seed=0,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    print(measure())
