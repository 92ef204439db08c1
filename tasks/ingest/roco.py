"""ROCO: captions of radiology figures from open-access articles, in the layout of version 1."""

import re
from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.files import read_lines
from tasks.ingest.finding import problem
from tasks.ingest.folder import find_root, resolve
from tasks.ingest.pictures import Picture, read_image
from tasks.ingest.rows import Row
from tasks.ingest.source import Source, gather
from tasks.records import Caption, Split

NAME = "roco"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def read(root: Path | None, *, max_rejected: float = 0.0) -> Source:
    """Read the radiology part of ROCO; the other part is photographs and drawings.

    Args:
        root: the folder that holds `data/train/radiology/captions.txt`, or the folder `data` itself.
        max_rejected: the largest share of unusable rows; a figure that could no longer be downloaded is one.

    An image is `images/<article>_<figure>` where `dlinks.txt` lists the figure, the name that ROCO's download script
    uses; else it is `images/<id>.jpg`.
    """
    layout = "train/radiology/captions.txt"
    found, _ = find_root(root, NAME, (f"data/{layout}", layout))
    folder = found.parents[1]
    links = {split: _links(folder / split / "radiology" / "dlinks.txt") for split in SPLITS}

    def make(row: Row) -> Caption:
        image = row.text("id")
        article, _ = links[row.split].get(image, (None, ""))
        return Caption(image, row.text("caption"), row.split, NAME, "en", group=article)

    def read_picture(row: Row) -> Picture:
        article, figure = links[row.split].get(row.text("id"), (None, ""))
        name = f"{article}_{figure}" if article else f"{row.text('id')}.jpg"
        return read_image(resolve(folder, row.split, "radiology", "images", name, where=row.where), row.where)

    return gather(folder, _rows(folder), make, read_picture, max_rejected=max_rejected)


def _rows(folder: Path) -> Iterator[Row]:
    """The lines of the caption files: an id, a tab, a space and the caption."""
    for split in SPLITS:
        path = folder / split / "radiology" / "captions.txt"
        for number, line in read_lines(path) if path.exists() else ():
            image, _, caption = line.decode(errors="replace").partition("\t")
            fault = None
            if "\N{REPLACEMENT CHARACTER}" in image + caption:
                fault = problem(f"{path}, row {number}", "text in UTF-8", "other bytes", "correct the row")
            yield Row(path, number, {"id": image, "caption": caption}, split, number - 1, fault=fault)


def _links(path: Path) -> dict[str, tuple[str, str]]:
    """Article and figure file of each id: `id <tab> wget ... <address of the article's archive> ... <tab> figure`.

    A damaged line is skipped; its image is then not found.
    """
    lines = read_lines(path) if path.exists() else ()
    found = (
        re.fullmatch(r"(\S+)\t.*?(PMC\d+)\.tar\.gz.*\t(.+)", line.decode(errors="replace").strip()) for _, line in lines
    )
    return {match[1]: (match[2], match[3]) for match in found if match}
