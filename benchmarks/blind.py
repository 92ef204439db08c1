"""Seconds that the answers from the question alone take, by how many training questions there are.

    python benchmarks/blind.py [COUNT ...]

Questions are drawn: eight words of 20,000 and one that hints at the answer; a third as many different answers as
questions, few of them common (Zipf's law). Time is that of the processor, on one core.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import sys
import time

import numpy as np

from tasks.records import Case
from tasks.score.baselines import question_only


def draw(count: int) -> list[Case]:
    """Open questions about no image."""
    rng = np.random.default_rng(0)
    words = rng.zipf(1.3, (count, 8)) % 20_000
    answers = rng.zipf(1.2, count) % (count // 3)
    return [
        Case(
            f"{place}",
            "",
            " ".join(f"w{word}" for word in row) + f" t{answer % 997}",
            f"a{answer}",
            "open",
            "train",
            "",
            "en",
        )
        for place, (row, answer) in enumerate(zip(words.tolist(), answers.tolist(), strict=True))
    ]


def main(counts: list[int]) -> None:
    """Print a line for each number of questions."""
    print("questions  seconds  peak MB")
    for count in counts:
        cases = draw(count)
        start = time.process_time()
        question_only(cases, cases[:1000], seed=0)
        spent, memory = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{count:9} {spent:8.1f} {memory:8}", flush=True)


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [2_000, 20_000, 150_000])
