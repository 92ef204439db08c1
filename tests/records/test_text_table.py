"""Tables as Markdown: whatever stands in a cell, the table keeps its rows and columns."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tasks.records.text_table import markdown_table

CELL = st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="\\\\"))


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4))
def test_a_cell_ends_where_it_should(rows: list[tuple[str, ...]]) -> None:
    lines = markdown_table(rows).split("\n")
    assert lines.pop(1) == "|---|---|---|"
    parted = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert [tuple(cell[1:-1].replace("\\|", "|") for cell in cells) for cells in parted] == rows
