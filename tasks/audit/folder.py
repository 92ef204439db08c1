"""Images of another dataset, read from a folder, to be looked for among a dataset's own."""

from collections.abc import Iterator
from pathlib import Path

import PIL.Image

from tasks.errors import OURS, StudyError
from tasks.records import Image

PREFIX = "against:"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def folder_images(folder: Path) -> Iterator[Image]:
    """The images anywhere below a folder, in the order of their paths, which are their ids after `against:`.

    Raises StudyError where there is no folder or no image, or a file is no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise StudyError(f"Expected a folder of images in --against, found none in {folder}: name another folder.")
    for path in paths:
        try:
            with PIL.Image.open(path) as image:
                image.draft("L", (1, 1))
                image.load()
                width, height = image.size
        except OURS:
            raise
        except Exception as error:  # decoders raise nearly anything for damaged bytes
            reason = " ".join(str(error).split())
            raise StudyError(f"Expected a whole image at {path}, found {reason}: restore or remove the file.") from None
        yield Image(f"{PREFIX}{path.relative_to(folder).as_posix()}", path.read_bytes(), width, height)
