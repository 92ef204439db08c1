"""SLAKE's English questions about its first 500 images as a hospital's own table, for the walk-through of docs/real.md.

    python -m benchmarks.own_table SLAKE OWN

OWN gets `cases.csv`, and `imgs`, a link to SLAKE's images.
"""

import csv
import json
import sys
from pathlib import Path

IMAGES = 500
COLUMNS = {
    "question": "question",
    "answer": "answer",
    "kind": "answer_type",
    "modality": "modality",
    "organ": "location",
}
"""The table's columns, each with SLAKE's field."""


def write(slake: Path, own: Path) -> None:
    """Write the table; `own` must not exist."""
    files = [slake / f"{name}.json" for name in ("train", "validate")]
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8")) if row["q_lang"] == "en"]
    images = list(dict.fromkeys(row["img_name"] for row in rows))[:IMAGES]
    own.mkdir()
    (own / "imgs").symlink_to((slake / "imgs").resolve())
    with (own / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["image", *COLUMNS])
        table.writeheader()
        for row in rows:
            if row["img_name"] in images:
                table.writerow(
                    {"image": f"imgs/{row['img_name']}"} | {name: row[field] for name, field in COLUMNS.items()}
                )


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:3]))
