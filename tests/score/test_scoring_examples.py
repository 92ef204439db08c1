"""Each row of the table of docs/scoring.md, judged as it says."""

import re
from pathlib import Path

import pytest

from tasks.score.score import score_row

PAGE = Path(__file__).parents[2] / "docs" / "scoring.md"


def cells(row: str) -> list[str]:
    return [re.sub(r"^`(.*)`$", r"\1", cell.strip()).replace("⏎", "\n") for cell in row.strip().strip("|").split("|")]


def table() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| answer given | reference | kind | options | right | why |") + 2
    end = next(place for place in range(start, len(lines)) if not lines[place].startswith("|"))
    return [cells(line) for line in lines[start:end]]


def test_the_table_is_read_whole() -> None:
    rows = table()
    assert len(rows) >= 60
    assert {len(row) for row in rows} == {6}
    assert {row[2] for row in rows} == {"open", "closed"}
    assert {row[4] for row in rows} == {"yes", "no"}


@pytest.mark.parametrize("row", table(), ids=[f"row {number}" for number, _ in enumerate(table(), 1)])
def test_an_example(row: list[str]) -> None:
    said, reference, kind, options, right, _ = row
    offered = options.split("; ") if options else ()
    assert score_row(said, reference, kind, offered).correct == (right == "yes")
    assert score_row(reference, reference, kind, offered).correct
