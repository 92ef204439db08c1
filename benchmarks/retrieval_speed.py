"""Speed and memory of the private library, as docs/retrieval.md quotes them.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval_speed [CASES ...]

Random unit vectors of 512 numbers, the hardest there are for an index; every question is about an image of the
library, whose own case must not come back. In turn with it, FAISS alone searches the same index for the same number of
neighbours and hides nothing. Memory is that of a new process that opens the library and searches it. The last
figure sets 64 questions, encoded by the embedded base and searched together, against the same one at a time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import faiss
import numpy as np

from tasks.records import Case
from tasks.retrieve.encoder import Rows
from tasks.retrieve.library import Library, build_library
from tasks.retrieve.serve import open_library
from tasks.store import peak_memory, writing

SIZES = (1_000, 100_000, 1_000_000)
WIDTH, DEPTH, BATCH = 512, 10, 64
SINGLE = 100
"""Questions that are searched one at a time."""
ASKED = 256
"""Questions whose recall is counted."""


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
            told, nearest = build(size)
            return told | search(size, nearest)
        finally:
            os.chdir(home)


def build(size: int) -> tuple[dict[str, object], np.ndarray]:
    """Build and store a library: its times and bytes, and the exact neighbours of the questions `(ASKED, DEPTH)`."""
    rows = unit_rows(size, 1)
    cases = [Case(f"c{n}", f"i{n}", "really?", "yes", "closed", "train", "d", "en") for n in range(size)]
    started = time.perf_counter()
    library = build_library(rows, cases)
    seconds = time.perf_counter() - started
    with writing("hospitals/h", "library", "k") as folder:
        library.write(folder.path)
    told: dict[str, object] = {"index": library.kind, "build_s": seconds}
    told["bytes_per_case"] = sum(path.stat().st_size for path in folder.ref.folder.iterdir()) / size
    cells = faiss.try_extract_index_ivf(library.index.main)
    if cells is not None:
        told["cells"], told["cells_searched"] = cells.nlist, cells.nprobe
    exact = faiss.IndexFlatIP(WIDTH)
    exact.add(rows)
    return told, exact.search(unit_rows(ASKED, 2), DEPTH)[1]


def search(size: int, nearest: np.ndarray) -> dict[str, object]:
    """Recall, speed and memory of the stored library, opened anew."""
    library = open_library(Path("artifacts/hospitals/h/library/k"))
    rows = unit_rows(ASKED, 2)
    cases = [Case("q", f"i{size - 1 - n}", "really?", "", "closed", "test", "d", "en") for n in range(ASKED)]
    found = library.index.search(rows, DEPTH)[1]
    hits = [len(set(one) & set(other)) for one, other in zip(found, nearest, strict=True)]
    return {
        "recall_at_10": sum(hits) / (DEPTH * ASKED),
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
    seconds = {name: float(np.median(each)) for name, each in in_turn(ways, 15).items()}
    return {
        "batched_per_s": len(rows) / seconds["ours"],
        "batched_by_faiss": seconds["ours"] / seconds["faiss"],
        "batched_with_names_by_faiss": seconds["with names"] / seconds["faiss"],
    }


def single(library: Library, rows: Rows, cases: list[Case]) -> dict[str, object]:
    """The same one at a time, with the median and the 99th percentile in milliseconds."""
    places = iter(range(10**9))
    at = {"ours": 0, "faiss": 0}

    def next_of(way: str) -> slice:
        at[way] = next(places) % SINGLE
        return slice(at[way], at[way] + 1)

    def ours() -> object:
        part = next_of("ours")
        return library.nearest(rows[part], cases[part], DEPTH)

    def bare() -> object:
        return library.index.main.search(rows[next_of("faiss")], DEPTH + 1)

    seconds = in_turn({"ours": ours, "faiss": bare}, SINGLE)
    p50, p99 = (float(np.percentile(seconds["ours"], each)) for each in (50, 99))
    return {
        "single_per_s": 1 / float(np.mean(seconds["ours"])),
        "single_p50_ms": 1000 * p50,
        "single_p99_ms": 1000 * p99,
        "single_p50_by_faiss": p50 / float(np.percentile(seconds["faiss"], 50)),
        "single_p99_by_faiss": p99 / float(np.percentile(seconds["faiss"], 99)),
    }


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way in each turn, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


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
    """64 questions with their images against the embedded base, together and one at a time."""
    from benchmarks.workload import SEED
    from tasks.engine.base import load_base
    from tasks.engine.vision import encode_images
    from tasks.ingest import phantom
    from tasks.retrieve.encoder import fit_encoder

    base = load_base("embedded", device="cpu")
    source = phantom.read(images=60, seed=SEED, public=False, test_fraction=0.4)
    features = encode_images(base, source.images)
    training, asked = ([case for case in source.cases if case.split == split] for split in ("train", "test"))
    asked = list({case.image_id: case for case in asked}.values())[:BATCH]
    images = {image.id: image for image in source.images}
    pooled = features.pooled([case.image_id for case in training])
    encoder = fit_encoder(pooled, [case.question for case in training], 0.5)
    library = build_library(encoder.encode(pooled, [case.question for case in training]), training)

    def together(cases: list[Case], known: bool = False) -> object:
        seen = features if known else encode_images(base, [images[case.image_id] for case in cases])
        rows = encoder.encode(seen.pooled([case.image_id for case in cases]), [case.question for case in cases])
        return library.search(rows, cases, DEPTH)

    seconds = in_turn(
        {
            "one at a time": lambda: [together([case]) for case in asked],
            "together": lambda: together(asked),
            "features at hand": lambda: together(asked, known=True),
        },
        5,
    )
    median = {name: float(np.median(each)) for name, each in seconds.items()}
    return {
        "questions": len(asked),
        "together_by_one_at_a_time": median["one at a time"] / median["together"],
        "features_at_hand_by_one_at_a_time": median["one at a time"] / median["features at hand"],
    }


def unit_rows(number: int, seed: int) -> Rows:
    """Random directions `(number, WIDTH)`."""
    rows = np.random.default_rng(seed).standard_normal((number, WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
