"""Speed and memory of the private library, as docs/retrieval.md quotes them.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval_speed [CASES ...]

Random unit vectors of 512 numbers, the hardest there are for an index; every question is about an image of the
library, whose own case must not come back. In turn with it, FAISS alone searches the same index for the same number of
neighbours and hides nothing. Shares of FAISS are of the processor's time, which other work on the machine does not
count into; all else is by the clock. Recall is measured on vectors around centres too. Memory is that of a new process
that opens the library and searches it. The last figures set 64 questions, encoded by the embedded base and searched
together, against the same one at a time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path

import faiss
import numpy as np

from tasks.records import Case
from tasks.retrieve.index import build_index
from tasks.retrieve.library import Library, build_library
from tasks.retrieve.library_folder import open_library
from tasks.retrieve.rows import Rows
from tasks.store import peak_memory, writing

SIZES = (1_000, 100_000, 1_000_000)
WIDTH, DEPTH, BATCH = 512, 10, 64
BATCHES, SINGLES, SECONDS = 7, 100, 10
"""Fewest turns of each way, together and alone, and the seconds for which more follow."""
QUERIES = 256
"""Questions whose recall is counted, and that are searched one at a time."""
CLUSTER = 200
"""Rows around a centre, where there are centres."""


def main(sizes: list[int]) -> None:
    """Print a line of JSON for each size, then that of encoding."""
    for size in sizes or SIZES:
        print(json.dumps({"cases": size, **measure(size)}), flush=True)
    print(json.dumps(encoding()), flush=True)


def measure(size: int) -> dict[str, object]:
    """All figures of one size of library, made in a folder that is removed."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            figures, nearest = build(size)
            return figures | search(size, nearest) | clustered(size)
        finally:
            os.chdir(home)


def build(size: int) -> tuple[dict[str, object], np.ndarray]:
    """Build and store a library: its times and bytes, and the exact neighbours of the questions `(QUERIES, DEPTH)`."""
    rows = unit_rows(size, 1)
    cases = [Case(f"c{n}", f"i{n}", "really?", "yes", "closed", "train", "d", "en") for n in range(size)]
    started = time.perf_counter()
    library = build_library(rows, cases)
    seconds = time.perf_counter() - started
    with writing("hospitals/h", "library", "k") as folder:
        library.write(folder.path)
    figures: dict[str, object] = {"index": library.kind, "build_s": seconds}
    figures["bytes_per_case"] = sum(path.stat().st_size for path in folder.ref.folder.iterdir()) / size
    cells = faiss.try_extract_index_ivf(library.index.main)
    if cells is not None:
        figures["cells"], figures["cells_searched"] = cells.nlist, cells.nprobe
    return figures, exactly(rows, unit_rows(QUERIES, 2))


def exactly(rows: Rows, queries: Rows) -> np.ndarray:
    """The nearest of all rows, by number `(n, DEPTH)`."""
    exact = faiss.IndexFlatIP(WIDTH)
    exact.add(rows)
    return exact.search(queries, DEPTH)[1]


def recall(found: np.ndarray, nearest: np.ndarray) -> float:
    """Share of the nearest that were found."""
    return sum(len(set(one) & set(other)) for one, other in zip(found, nearest, strict=True)) / nearest.size


def clustered(size: int) -> dict[str, object]:
    """The recall of an index of vectors around centres, as those of like images are."""
    rows, queries = unit_rows(size, 1, size // CLUSTER), unit_rows(QUERIES, 2, size // CLUSTER)
    index = build_index(rows, np.arange(size))
    figures: dict[str, object] = {
        "recall_at_10_clustered": recall(index.search(queries, DEPTH)[1], exactly(rows, queries))
    }
    cells = faiss.try_extract_index_ivf(index.main)
    return figures | ({"cells_searched_clustered": cells.nprobe} if cells is not None else {})


def search(size: int, nearest: np.ndarray) -> dict[str, object]:
    """Recall, speed and memory of the stored library, opened anew."""
    library = open_library(Path("artifacts/hospitals/h/library/k"))
    rows = unit_rows(QUERIES, 2)
    cases = [Case("q", f"i{size - 1 - n}", "really?", "", "closed", "test", "d", "en") for n in range(QUERIES)]
    return {
        "recall_at_10": recall(library.index.search(rows, DEPTH)[1], nearest),
        **batched(library, rows[:BATCH], cases[:BATCH]),
        **single(library, rows, cases),
        "peak_memory_mb": child_memory() / 1e6,
    }


def batched(library: Library, rows: Rows, cases: list[Case]) -> dict[str, object]:
    """Questions by second, 64 at once, and the seconds of FAISS alone as a share."""
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: library.nearest(rows, cases, DEPTH),
        "faiss": lambda: library.index.main.search(rows, DEPTH + 1),
        "with names": lambda: library.search(rows, cases, DEPTH),
    }
    spent = {name: np.median(each, 0) for name, each in in_turn(ways, BATCHES, SECONDS).items()}
    return {
        "batched_per_s": len(rows) / spent["ours"][0],
        "batched_by_faiss": spent["ours"][1] / spent["faiss"][1],
        "batched_with_names_by_faiss": spent["with names"][1] / spent["faiss"][1],
    }


def single(library: Library, rows: Rows, cases: list[Case]) -> dict[str, object]:
    """The same one at a time, with the median and the 99th percentile in milliseconds."""
    turns = {"ours": count(), "faiss": count()}

    def next_of(way: str) -> slice:
        place = next(turns[way]) % len(rows)
        return slice(place, place + 1)

    def ours() -> object:
        part = next_of("ours")
        return library.nearest(rows[part], cases[part], DEPTH)

    def bare() -> object:
        return library.index.main.search(rows[next_of("faiss")], DEPTH + 1)

    spent = in_turn({"ours": ours, "faiss": bare}, SINGLES, SECONDS)
    (p50, share), (p99, far) = (
        (1000 * np.percentile(spent["ours"][:, 0], each), percentile_share(spent, each)) for each in (50, 99)
    )
    return {
        "single_per_s": 1 / float(np.mean(spent["ours"][:, 0])),
        "single_p50_ms": p50,
        "single_p99_ms": p99,
        "single_p50_by_faiss": share,
        "single_p99_by_faiss": far,
    }


def percentile_share(spent: Mapping[str, np.ndarray], percentile: int) -> float:
    """A percentile of our processor times as a share of that of FAISS's."""
    return float(np.percentile(spent["ours"][:, 1], percentile) / np.percentile(spent["faiss"][:, 1], percentile))


def in_turn(ways: Mapping[str, Callable[[], object]], turns: int, seconds: float) -> dict[str, np.ndarray]:
    """Seconds by the clock and of the processor in each turn of each way, `(turns, 2)`; a first turn does not count."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    for turn in count():
        for name, way in ways.items():
            started, busy = time.perf_counter(), time.thread_time()
            way()
            busy, passed = time.thread_time() - busy, time.perf_counter() - started
            if turn:
                spent[name].append((passed, busy))
        if turn >= turns and time.perf_counter() > end:
            break
    return {name: np.array(each) for name, each in spent.items()}


def child_memory() -> int:
    """Peak bytes of a process that opens the library in the working folder and searches it."""
    command = [sys.executable, "-c", "from benchmarks.retrieval_speed import serve; serve()"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def serve() -> None:
    """Open the library, search 64 questions at once and 10 alone; print the peak memory."""
    library = open_library(Path("artifacts/hospitals/h/library/k"))
    rows = unit_rows(BATCH, 3)
    cases = [Case("q", f"i{n}", "really?", "", "closed", "test", "d", "en") for n in range(BATCH)]
    library.search(rows, cases, DEPTH)
    for place in range(10):
        library.search(rows[place : place + 1], cases[place : place + 1], DEPTH)
    print(peak_memory())


def encoding() -> dict[str, object]:
    """64 questions with their images against the embedded base, together and one at a time.

    One at a time is how published code asks: each question's image is decoded, prepared and encoded for it, and the
    index searched for it. Together, each image is encoded once, however many questions are about it.
    """
    from benchmarks.workload import SEED
    from tasks.engine.base import load_base
    from tasks.engine.vision import encode_images
    from tasks.ingest import phantom
    from tasks.retrieve.similarity import fit_encoder

    base = load_base("embedded", device="cpu")
    source = phantom.read(images=200, seed=SEED, public=False, test_fraction=0.4)
    features = encode_images(base, source.images)
    training, test = ([case for case in source.cases if case.split == split] for split in ("train", "test"))
    images = {image.id: image for image in source.images}
    pooled = features.pooled([case.image_id for case in training])
    encoder = fit_encoder(pooled, [case.question for case in training], 0.5)
    library = build_library(encoder.encode(pooled, [case.question for case in training]), training)

    def together(cases: list[Case], known: bool = False) -> object:
        seen = features if known else encode_images(base, [images[name] for name in {c.image_id: 0 for c in cases}])
        rows = encoder.encode(seen.pooled([case.image_id for case in cases]), [case.question for case in cases])
        return library.search(rows, cases, DEPTH)

    def one_by_one(cases: list[Case]) -> object:
        return [together([case]) for case in cases]

    figures: dict[str, object] = {}
    each = list({case.image_id: case for case in test}.values())
    for name, cases in (("an_image_each", each[:BATCH]), ("as_they_come", test[:BATCH])):
        spent = in_turn(
            {
                "alone": partial(one_by_one, cases),
                "together": partial(together, cases),
                "known": partial(together, cases, known=True),
            },
            turns=5,
            seconds=0,
        )
        alone, joined, known = (float(np.median(spent[way][:, 1])) for way in ("alone", "together", "known"))
        figures[name] = {
            "questions": len(cases),
            "images": len({case.image_id for case in cases}),
            "together": alone / joined,
            "features_at_hand": alone / known,
        }
    return figures


def unit_rows(number: int, seed: int, centres: int = 0) -> Rows:
    """Random directions `(number, WIDTH)`, or such around some centres, the cosine within one about 0.8."""
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((number, WIDTH), dtype=np.float32)
    if centres:
        middle = np.random.default_rng(0).standard_normal((centres, WIDTH), dtype=np.float32)
        rows *= 0.5
        rows += middle[draw.integers(0, centres, number)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
