"""Seconds that the audit's comparison of images takes, by how many there are.

    python benchmarks/audit.py [COUNT or FOLDER ...]

So many images are drawn: smooth random shapes within a dark frame, 256 pixels wide, as JPEG; each tenth is a changed
copy of another. Drawing them is not counted. Of a folder, all images are compared.
"""

import io
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image

from tasks.audit.fingerprint import fingerprints
from tasks.audit.folder import folder_images
from tasks.audit.pairs import image_pairs
from tasks.records import Image
from tasks.records.pixels import pixel_digest

COPIED = 10


def draw(number: int) -> Image:
    """One image; the last of each ten shows what the first of them shows, smaller and darker."""
    copied = number % COPIED == COPIED - 1
    shape = np.random.default_rng(number - COPIED + 1 if copied else number).integers(0, 255, (12, 12))
    side = 200 if copied else 256
    picture = PIL.Image.fromarray(shape.astype(np.uint8)).resize((side, side), PIL.Image.Resampling.BICUBIC)
    if copied:
        picture = picture.point(lambda level: level * 0.7)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=85)
    return Image(f"{number:06}", sink.getvalue(), side, side)


def digests(data: Mapping[str, bytes], wanted: Iterable[str]) -> dict[str, bytes]:
    """Of the pixels of these images."""
    return {name: pixel_digest(data[name]) for name in wanted}


def main(wanted: list[str]) -> None:
    """Print a line for each number of drawn images, and for each folder."""
    print("images  decode s  pairs s  total s  ms each  pairs  drawn copies found")
    for each in wanted:
        drawn = each.isdigit()
        images = [draw(number) for number in range(int(each))] if drawn else list(folder_images(Path(each)))
        count = len(images)
        data = {image.id: image.data for image in images}
        start = time.perf_counter()
        prints = list(fingerprints(images))
        decoded = time.perf_counter()
        pairs = image_pairs(prints, partial(digests, data))
        end = time.perf_counter()
        spent = end - start
        seconds = f"{decoded - start:9.1f} {end - decoded:8.1f} {spent:8.1f} {1000 * spent / count:8.2f}"
        found = sum(drawn and int(pair.image_b) - int(pair.image_a) == COPIED - 1 for pair in pairs)
        share = f"{found / (count // COPIED):.3f}" if drawn else "-"
        print(f"{count:6} {seconds} {len(pairs):6}  {share}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["5000", "10000", "25000"])
