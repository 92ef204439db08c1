"""The page of a table of attacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tasks.records.text_table import Table
from tasks.report.page.render import fill


def attack_page(name: str, seeds: Sequence[int], tables: Sequence[Table], settings: Mapping[str, Any]) -> str:
    """One HTML file.

    Args:
        name: of the table.
        seeds: of its studies.
        tables: its tables as text.
        settings: its settings as plain values.
    """
    text = yaml.safe_dump(settings, sort_keys=False)
    return fill("attack.html", name=name, seeds=seeds, tables=tables, settings=text)
