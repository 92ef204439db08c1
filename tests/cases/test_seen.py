"""What a base has seen: an image is found among its training images as it is, shrunk or compressed, and no other is."""

import hashlib
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from ingest_samples import real
from scipy.fft import dctn

from tasks.cases.seen import ALIKE, find_seen, join, read_seen, seen_images, shape_bits
from tasks.errors import StudyError
from tasks.records import Case, Image, SeenImage, write_table

COUNT = 40


def drawn(seed: int, side: int = 400) -> PIL.Image.Image:
    """A picture like no other: smooth random levels, with noise, under a bright disc."""
    chooser = np.random.default_rng(seed)
    levels = PIL.Image.fromarray(chooser.integers(0, 200, (14, 14)).astype(np.uint8))
    smooth = np.asarray(levels.resize((side, side - 60), PIL.Image.Resampling.BICUBIC), float)
    down, across = np.indices(smooth.shape)
    disc = ((down - 150) ** 2 + (across - 200) ** 2 < 70**2) * 50
    return PIL.Image.fromarray(np.clip(smooth + disc + chooser.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8))


def saved(picture: PIL.Image.Image, form: str = "PNG", **options: int) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, form, **options)
    return sink.getvalue()


def image(name: str, data: bytes) -> Image:
    return Image(name, data, *PIL.Image.open(io.BytesIO(data)).size)


PICTURES = [drawn(seed) for seed in range(COUNT)]
IMAGES = [image(f"secret-{place}", saved(picture)) for place, picture in enumerate(PICTURES)]
RECORD = list(seen_images(IMAGES[:20], {each.id: "own" for each in IMAGES}))


def shrunk(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    return picture.resize((side, round(side * picture.height / picture.width)), PIL.Image.Resampling.LANCZOS)


@pytest.mark.parametrize(
    ("copy", "sight"),
    [
        (lambda picture: saved(picture, "BMP"), "identical"),
        (lambda picture: saved(picture.convert("RGB")), "identical"),
        (lambda picture: saved(shrunk(picture, 200)), "alike"),
        (lambda picture: saved(shrunk(picture, 256)), "alike"),
        (lambda picture: saved(picture, "JPEG", quality=85), "alike"),
        (lambda picture: saved(picture, "JPEG", quality=60), "alike"),
        (lambda picture: saved(shrunk(picture, 200), "JPEG", quality=60), "alike"),
    ],
    ids=["bmp", "rgb", "half", "256", "jpeg-85", "jpeg-60", "half-jpeg-60"],
)
def test_a_copy_is_found_and_no_other_image_is(copy: object, sight: str) -> None:
    copies = [image(str(place), copy(picture)) for place, picture in enumerate(PICTURES)]  # type: ignore[operator]
    assert find_seen(copies, RECORD) == {str(place): sight for place in range(20)}
    assert find_seen(copies, []) == {}


def signs(data: bytes) -> np.ndarray:
    """The perceptual hash written out with SciPy: of the picture at 192, then 48 pixels, with stretched contrast."""
    picture = PIL.Image.open(io.BytesIO(data)).convert("L")
    scale = 192 / max(picture.size)
    size = tuple(round(side * scale) for side in picture.size)
    gray = np.asarray(picture.resize(size, PIL.Image.Resampling.BOX), float)  # type: ignore[arg-type]
    ordered = np.sort(gray, axis=None)
    low, high = ordered[int(0.005 * gray.size)], ordered[int(0.995 * gray.size)]
    stretched = PIL.Image.fromarray(np.clip((gray - low) / (high - low), 0, 1).astype(np.float32))
    small = np.asarray(stretched.resize((48, 48), PIL.Image.Resampling.BOX), float)
    return dctn(small - small.mean())[:10, :10].ravel()[1:] > 0


def test_hashes_are_the_signs_of_the_lowest_frequencies() -> None:
    for each in IMAGES:
        data = np.frombuffer(shape_bits(each.data), np.uint8)
        bits = np.unpackbits(data)
        assert len(data) == 13 and not bits[99:].any()
        assert (bits[:99] != signs(each.data)).sum() <= 1  # a frequency of nearly 0 may have either sign


def test_an_image_is_alike_up_to_the_stated_number_of_bits() -> None:
    """By brute force over hashes that were changed in so many places."""
    chooser = np.random.default_rng(0)
    query = IMAGES[30]
    bits = np.unpackbits(np.frombuffer(shape_bits(query.data), np.uint8))
    for differing in (0, 1, ALIKE - 1, ALIKE, ALIKE + 1, 50):
        other = bits.copy()
        other[chooser.choice(99, differing, replace=False)] ^= 1
        record = [*RECORD, SeenImage("own", b"0" * 32, np.packbits(other).tobytes())]
        assert find_seen([query], record) == ({query.id: "alike"} if differing <= ALIKE else {})


def test_blank_images_are_known_by_their_pixels_alone() -> None:
    blank, other = (image(name, saved(PIL.Image.new("L", (60, 50), level))) for name, level in (("a", 7), ("b", 90)))
    record = list(seen_images([blank], {"a": "own"}))
    assert record[0].shape == b""
    assert find_seen([blank, other], record) == {"a": "identical"}
    assert find_seen([replace(other, id="c"), IMAGES[0]], record) == {}


def test_a_record_tells_no_name_no_order_and_each_image_once(tmp_path: Path) -> None:
    path = tmp_path / "seen.parquet"
    rows = join(RECORD[::-1], RECORD, [replace(RECORD[0], dataset="another")])
    assert rows == join(rows[::-1]) and len(rows) == 21
    assert rows[0].dataset == "another"
    assert [row.pixels for row in rows[1:]] == sorted(row.pixels for row in RECORD)
    with path.open("wb") as sink:
        write_table(sink, SeenImage, rows)
    assert read_seen(path) == rows
    table = pq.read_table(path)
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "dataset": "string",
        "pixels": "binary",
        "shape": "binary",
    }
    assert b"secret" not in path.read_bytes()
    levels = np.asarray(PICTURES[0].convert("RGB"))
    digest = hashlib.sha256(repr((levels.shape, "uint8")).encode() + levels.tobytes()).digest()
    assert digest in {row.pixels for row in rows}


def test_only_images_with_a_dataset_are_recorded() -> None:
    rows = list(seen_images(IMAGES[:3], {"secret-1": "slake"}))
    assert [row.dataset for row in rows] == ["slake"]
    assert find_seen(IMAGES[:3], rows) == {"secret-1": "identical"}


def test_another_file_in_place_of_a_record_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "seen.parquet"
    for write in (
        lambda sink: sink.write(b"nothing of the kind"),
        lambda sink: write_table(sink, Case, []),
        lambda sink: write_table(sink, SeenImage, [SeenImage("own", b"0" * 32, b"short")]),
    ):
        with path.open("wb") as sink:
            write(sink)
        with pytest.raises(StudyError, match=r"^Expected .*seen\.parquet to be a record of training images"):
            read_seen(path)


def test_the_shipped_record_is_of_images_that_slake_published_for_training() -> None:
    rows = read_seen(Path(__file__).parents[2] / "data/radiology/seen.parquet")
    assert Counter(row.dataset for row in rows) == {"slake": 396, "vqa-rad": 275}  # of 450 and 313
    slake = real("slake")
    questions = json.loads((slake / "train.json").read_text(encoding="utf-8"))
    names = sorted({row["img_name"] for row in questions if row["q_lang"] == "en"})
    images = [image(name, (slake / "imgs" / name).read_bytes()) for name in names]
    published = join(seen_images(images, dict.fromkeys(names, "slake")))
    assert len(published) == 450
    assert {row for row in rows if row.dataset == "slake"} < set(published)


def test_copies_that_another_dataset_published_are_found() -> None:
    """VQA-RAD's images in MedPix, at most 224 pixels and gray there, by their published number."""
    theirs = real("medpix-2.0/MedPix-2-0/images")
    record = list(seen_images(ours := published(real("vqa-rad-osf/VQA_RAD Image Folder"), "*.jpg"), numbers(ours)))
    copies = [
        each for each in published(theirs, "*.png") if set(numbers([each]).values()) & set(numbers(ours).values())
    ]
    others = published(theirs, "*.png")[::40]
    found = find_seen([*copies, *others], record)
    assert len(copies) == 18
    assert sum(each.id in found for each in copies) == 16
    assert not [each for each in others if each.id in found and each not in copies]


def published(folder: Path, pattern: str) -> list[Image]:
    return [image(path.stem, path.read_bytes()) for path in sorted(folder.glob(pattern))]


def numbers(images: list[Image]) -> dict[str, str]:
    return {each.id: each.id.rpartition("synpic")[2] for each in images}
