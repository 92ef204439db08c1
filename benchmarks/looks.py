"""How many copies the hash finds by which hospitals compare images, and how many other images it takes for copies.

    python -m benchmarks.looks FOLDER

Of the first 300 images below a folder: each against its own copies in another size, brightness and format, and against
all other images.
"""

import io
import sys
from itertools import islice
from pathlib import Path

import PIL.Image

from tasks.audit.folder import folder_images
from tasks.records.look import Look, look

MOST = 300
COPIES = {
    "0.7 of its size": (0.7, 1.0, "PNG"),
    "0.7 of its brightness": (1.0, 0.7, "PNG"),
    "JPEG": (1.0, 1.0, "JPEG"),
    "0.8 of its size, 0.9 of its brightness, JPEG": (0.8, 0.9, "JPEG"),
}


def copy(data: bytes, size: float, light: float, kind: str) -> bytes:
    """The same picture in another size, brightness and format."""
    picture = PIL.Image.open(io.BytesIO(data)).convert("L")
    picture = picture.resize([round(side * size) for side in picture.size]).point(lambda level: level * light)
    sink = io.BytesIO()
    picture.save(sink, kind)
    return sink.getvalue()


def alike(one: Look | None, other: Look | None) -> bool:
    """Whether a receiver that has the other would find the one."""
    return one is not None and other is not None and one.bits in other.likely


def main(folder: Path) -> None:
    """Print a line for each kind of copy, and one for other images."""
    images = [image.data for image in islice(folder_images(folder), MOST)]
    looks = [look(data) for data in images]
    for name, how in COPIES.items():
        found = sum(alike(one, look(copy(data, *how))) for one, data in zip(looks, images, strict=True))
        print(f"{name}: {found} of {len(images)} found")
    others = [(at, to) for at in range(len(looks)) for to in range(len(looks)) if at != to]
    print(f"other images: {sum(alike(looks[at], looks[to]) for at, to in others)} of {len(others)} taken for copies")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
