"""Boxes of organs and lesions that SLAKE ships beside its images, as findings.

An image's folder holds `detection.json`, a list of objects such as `{"Brain Edema": [72.0, 128.0, 45.0, 60.0]}`:
left, upper, width and height of a box, in pixels. Its `mask.png` is not read: nothing says what its colours mean.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tasks.ingest.phantom_images import png
from tasks.records import Finding, Image

FILE = "detection.json"


def read_boxes(folder: Path, images: Iterable[Image]) -> tuple[list[Finding], int]:
    """The findings of all images, each a filled box; and the number of files that could not be read.

    `folder` holds one folder for each image, of its id's name. Nothing is found for an image without the file, and no
    box that lies outside of its image.
    """
    findings: list[Finding] = []
    unreadable = 0
    for image in images:
        path = folder / image.id / FILE
        if not path.is_file():
            continue
        try:
            findings += _findings(image, json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError):  # not JSON, or JSON of another shape
            unreadable += 1
    return findings, unreadable


def _findings(image: Image, rows: list[dict[str, list[float]]]) -> Iterator[Finding]:
    for row in rows:
        for name, (left, upper, width, height) in row.items():
            mask = np.zeros((image.height, image.width), np.uint8)
            start = max(round(left), 0), max(round(upper), 0)
            mask[start[1] : max(round(upper + height), 0), start[0] : max(round(left + width), 0)] = 255
            if mask.any():
                yield Finding(image.id, name.strip(), "", "", png(mask))
