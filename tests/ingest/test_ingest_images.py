"""A dataset's images on disk: a list that holds no bytes."""

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ingest_samples import picture, rad_row, write_bytes, write_mevf
from test_ingest_datasets import load

from tasks.ingest.images import Images
from tasks.ingest.merge import merge
from tasks.ingest.source import Source
from tasks.ingest.table import read as read_own_table
from tasks.records import Image, read_images, read_table, write_table

SOME = [Image(f"i{number}", bytes([number]) * number, number, 1) for number in range(5)]


def test_images_are_a_list_of_what_was_appended() -> None:
    images = Images(SOME)
    assert list(images) == SOME
    assert (len(images), images[3], images[-1], images[1:3]) == (5, SOME[3], SOME[4], SOME[1:3])
    assert list(images.ids) == [image.id for image in SOME]
    assert images == Images(SOME) != Images(SOME[::-1])
    pairs = [(one, other) for one in images for other in images]  # two readers of one file
    assert pairs == [(one, other) for one in SOME for other in SOME]
    images.append(Image("late", b"x", 1, 1))
    assert (images[0], images[5].data) == (SOME[0], b"x")
    with pytest.raises(IndexError):
        images[6]


def test_tables_of_images_are_written_and_read_in_batches(tmp_path: Path) -> None:
    images = [Image(f"i{number}", b"x", 1, 1) for number in range(150)]
    for count, groups in ((150, 3), (64, 1), (0, 0)):
        with (tmp_path / "t.parquet").open("wb") as sink:
            write_table(sink, Image, iter(images[:count]))
        assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == groups
        assert list(read_images(tmp_path / "t.parquet")) == images[:count] == read_table(tmp_path / "t.parquet", Image)


def large(number: int) -> bytes:
    """A PNG of a megabyte, nearly all of it behind its end."""
    return picture(number) + bytes(1_000_000)


@pytest.mark.parametrize("name", ["table", "vqa-rad"])
def test_ingest_holds_few_images_at_once(tmp_path: Path, name: str) -> None:
    count = 40
    if name == "vqa-rad":
        root = write_mevf(tmp_path, [rad_row(n, f"synpic{n + 1}.jpg") for n in range(count)], images=count)
    else:
        root = tmp_path
        lines = [f"images/synpic{n + 1}.jpg,a{n}?,b" for n in range(count)]
        write_bytes(root / "t.csv", "\n".join(["image,question,answer", *lines]).encode())
    for number in range(count):
        write_bytes(root / "images" / f"synpic{number + 1}.jpg", large(number))

    def run() -> Any:
        if name == "table":
            return merge({"one": read_own_table(root, language="en"), "two": Source([], Images())})
        return load(name, root)

    run()  # what is imported on the way counts no more
    tracemalloc.start()
    source = run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source.images) == count
    assert peak < 8_000_000
