"""Images of another dataset in a folder, which the audit compares with the dataset's images."""

from collections.abc import Iterator
from pathlib import Path

import PIL.Image

from tasks.errors import StudyError
from tasks.records import Image
from tasks.records.pixels import PictureError, to_rgb

PREFIX = "against:"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def folder_images(folder: Path) -> Iterator[Image]:
    """Read the images anywhere below a folder, in the order of their paths; ids are `against:` and the path.

    Raises StudyError where there is no folder or no image, or where a file cannot be read as an image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise StudyError(f"Expected a folder of images in --against, found none in {folder}: name another folder.")
    for path in paths:
        data = path.read_bytes()
        try:
            width, height = to_rgb(data).size
        except (PictureError, PIL.Image.DecompressionBombError) as error:
            raise StudyError(f"Expected a whole image at {path}, found {error}: restore or remove the file.") from None
        yield Image(f"{PREFIX}{path.relative_to(folder).as_posix()}", data, width, height)
