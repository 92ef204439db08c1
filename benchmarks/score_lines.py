"""Seconds that scoring predictions takes, by how many there are, where answers repeat and where none does.

    python benchmarks/score_lines.py [COUNT ...]

Of a published file's answers to open and closed questions (SLAKE), a prediction is the reference, another's answer, or
both in a row. Reading the file is not counted.
"""

import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.records import Kind
from tasks.score.file import score_document
from tasks.score.lines import Line

SLAKE = Path("../shared/datasets/slake/train.json")


def draw(count: int, rows: Sequence[dict[str, str]], *, repeating: bool) -> list[Line]:
    """So many predictions; a number behind each keeps them apart unless they may repeat."""
    chance = random.Random(0)
    lines = []
    for number in range(count):
        row, other_row = chance.choice(rows), chance.choice(rows)
        said = chance.choice([str(row["answer"]), str(other_row["answer"]), f"{row['answer']} {other_row['answer']}"])
        said = said if repeating else f"{said} {number}"
        kind: Kind = "closed" if row["answer_type"].strip() == "CLOSED" else "open"
        lines.append(Line(number, said, str(row["answer"]), kind, image=row["img_name"]))
    return lines


def main(counts: Sequence[int]) -> None:
    """Print a line for each count."""
    rows = json.loads(SLAKE.read_text(encoding="utf-8"))
    print("lines    repeating s  distinct s")
    for count in counts:
        seconds = []
        for repeating in (True, False):
            lines = draw(count, rows, repeating=repeating)
            start = time.perf_counter()
            score_document(lines)
            seconds.append(time.perf_counter() - start)
        print(f"{count:7}  {seconds[0]:11.1f}  {seconds[1]:10.1f}")


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [10_000, 100_000])
