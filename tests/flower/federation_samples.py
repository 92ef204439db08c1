"""Three hospitals' tables, and the table of all of them, which a simulation deals out in the same way."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
IMAGES = 6
ASKED = (("is there a mass?", "yes", "no"), ("where is it?", "left", "right"))


def picture(random: np.random.Generator) -> bytes:
    """A PNG of coarse noise."""
    sink = io.BytesIO()
    pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
    PIL.Image.fromarray(pixels).resize((56, 56)).save(sink, "PNG")
    return sink.getvalue()


def rows_of(number: int) -> list[dict[str, object]]:
    """The rows of one hospital: `IMAGES` images with two questions each, the last two images for testing."""
    random = np.random.default_rng(number)
    rows: list[dict[str, object]] = []
    for image in range(IMAGES):
        data, split = picture(random), "test" if image >= IMAGES - 2 else "train"
        for question, *answers in ASKED:
            row = {"image": {"bytes": data, "path": None}, "question": question, "answer": answers[image % 2]}
            rows.append(row | {"organ": f"organ {number}", "modality": "CT", "split": split})
    return rows


def write_tables(root: Path) -> None:
    """A folder for each hospital, with its table; and `all`, with the rows of all of them."""
    tables = {name: rows_of(number) for number, name in enumerate(HOSPITALS, start=1)}
    tables["all"] = [row for name in HOSPITALS for row in tables[name]]
    for name, rows in tables.items():
        (root / name).mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(root / name / "cases.parquet")
