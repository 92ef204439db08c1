"""Copies of images: found however they were changed, and other images are not taken for them."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from audit_samples import KINDS, as_png, find, load, plant
from ingest_samples import real

from tasks.audit.fingerprint import fingerprint, trim, unframed
from tasks.records import Image
from tasks.records.shapes import SIDE

VQA_RAD = "vqa-rad-osf/VQA_RAD Image Folder"
MEDPIX = "medpix-2.0/MedPix-2-0/images"


def files(name: str, suffix: str) -> list[Path]:
    return sorted(real(name).glob(f"*.{suffix}"))


def medpix_case(name: str) -> str:
    return name.removeprefix("copy:").split("_")[0]


def measure(images: list[Image], seed: int, kinds: Sequence[str] = KINDS) -> tuple[float, float, list[str]]:
    """Recall and precision of planted copies, and the originals whose copy was missed.

    MedPix files several slices of one scan, or one film twice, under one case: such a pair is no false one.
    """
    names = {image.id for image in images}
    kind = {image.id: kinds[place % len(kinds)] for place, image in enumerate(images)}
    true, false = set(), 0
    for pair in find([*images, *plant(images, seed, kinds)]):
        copies = [name for name in (pair.image_a, pair.image_b) if name.startswith("copy:")]
        if len(copies) != 1:
            continue
        original = pair.image_a if pair.image_b == copies[0] else pair.image_b
        if copies[0] == f"copy:{original}":
            assert (pair.relation == "flipped") == (kind[original] == "flip"), pair
            true.add(original)
        elif "_" not in original or medpix_case(original) != medpix_case(copies[0]):
            false += 1
    return len(true) / len(images), len(true) / (len(true) + false), sorted(names - true)


@pytest.mark.slow
def test_planted_copies_are_found_on_real_images() -> None:
    images = [load(path) for path in files(VQA_RAD, "jpg")[1:160:4] + files(MEDPIX, "png")[1:800:20]]
    recall, precision, missed = measure(images, seed=3)
    assert recall >= 0.97, missed  # two of 80 are let through: the next test measures
    assert precision >= 0.98


def test_copies_without_their_margins_are_found_on_real_images() -> None:
    images = [load(path) for path in files(VQA_RAD, "jpg")[1:160:4] + files(MEDPIX, "png")[1:800:20]]
    recall, precision, missed = measure(images, seed=3, kinds=["crop"])
    assert recall >= 0.9, missed
    assert precision >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suffix", "step"), [(VQA_RAD, "jpg", 2), (MEDPIX, "png", 4)])
@pytest.mark.parametrize(("kinds", "least"), [(KINDS, 0.98), (("crop",), 0.9)], ids=["kinds", "crop"])
def test_planted_copies_are_found_at_the_stated_rates(
    name: str, suffix: str, step: int, kinds: Sequence[str], least: float
) -> None:
    """On the odd images: the even ones chose the threshold. Prints what docs/audit.md quotes."""
    images = [load(path) for path in files(name, suffix)[1::step]]
    recall, precision, missed = measure(images, seed=11, kinds=kinds)
    print(f"{name}: {len(images)} copies, recall {recall:.3f}, precision {precision:.3f}")
    assert recall >= least, missed
    assert precision >= 0.98


def test_images_of_vqa_rad_are_found_in_medpix_by_their_published_number() -> None:
    number = re.compile(r"synpic(\d+)")
    theirs = [load(path) for path in files(VQA_RAD, "jpg")]
    wanted = {number.findall(image.id)[0] for image in theirs}
    shared = [path for path in files(MEDPIX, "png") if number.findall(path.stem)[0] in wanted]
    others = [path for path in files(MEDPIX, "png")[::8] if path not in shared]
    pairs = find([*theirs, *(load(path) for path in [*shared, *others])])
    across = [pair for pair in pairs if pair.image_a.startswith("MPX") != pair.image_b.startswith("MPX")]
    same = [pair for pair in across if number.findall(pair.image_a) == number.findall(pair.image_b)]
    assert len(shared) == 18
    assert len(same) >= 16
    # The rest are of near numbers: other slices of one scan, or one slice published twice.
    gaps = [abs(int(number.findall(pair.image_a)[0]) - int(number.findall(pair.image_b)[0])) for pair in across]
    assert max(gaps) <= 60
    assert len(across) <= 20


def drawing(seed: int, size: tuple[int, int] = (120, 100)) -> np.ndarray:
    """A picture like no other: smooth random levels."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9)).astype(np.uint8)
    return np.asarray(PIL.Image.fromarray(coarse).resize(size, PIL.Image.Resampling.BICUBIC))


def image(name: str, levels: np.ndarray) -> Image:
    return Image(name, as_png(PIL.Image.fromarray(levels)), levels.shape[1], levels.shape[0])


def test_copies_of_deep_images_are_found_whatever_is_missing_in_them() -> None:
    levels = drawing(4).astype(np.float32)
    levels[5, 7], levels[50, 60] = np.nan, np.inf
    files = {}
    for name, values in {"a": levels, "b": 2 * levels, "c": drawing(5).astype(np.float32)}.items():
        sink = io.BytesIO()
        PIL.Image.fromarray(values).save(sink, "TIFF")
        files[name] = sink.getvalue()
    pairs = find([Image(name, data, 120, 100) for name, data in files.items()])
    assert [(pair.image_a, pair.image_b, pair.relation) for pair in pairs] == [("a", "b", "near_duplicate")]


def test_the_strongest_relation_is_told() -> None:
    one = image("a", drawing(1))
    sink = io.BytesIO()
    PIL.Image.fromarray(drawing(1)).save(sink, "BMP")
    pairs = find(
        [
            one,
            Image("b", one.data, one.width, one.height),
            Image("c", sink.getvalue(), one.width, one.height),
            image("d", np.flipud(drawing(1))),
            image("e", np.fliplr(drawing(2))),
            image("f", drawing(2, (240, 200))),
            image("g", drawing(3)),
        ]
    )
    found = {(pair.image_a, pair.image_b): pair.relation for pair in pairs}
    assert found == {
        ("a", "b"): "identical_bytes",
        ("a", "c"): "identical_pixels",
        ("a", "d"): "flipped",
        ("c", "d"): "flipped",
        ("e", "f"): "flipped",
    }
    assert find([]) == []


def test_the_order_of_the_images_makes_no_difference() -> None:
    images = [image(f"{place}", drawing(place % 5, (100 + 4 * place, 90))) for place in range(15)]
    assert find(images) == find(images[::-1]) != []


def test_many_images_are_searched_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.audit.search as search

    images = [image(f"{place:03}", drawing(place % 150, (96 + place // 150 * 30, 96))) for place in range(300)]
    exact = find(images)
    monkeypatch.setattr(search, "EXACT", 100)
    monkeypatch.setattr(search, "CELL", 20)
    assert find(images) == exact
    assert len(exact) == 150


def test_blank_images_and_odd_modes_are_read() -> None:
    blank = fingerprint(image("blank", np.full((20, 30), 7, np.uint8)))
    assert blank.pictures.shape == (0, SIDE, SIDE)
    levels = drawing(4)
    deep = as_png(PIL.Image.fromarray(levels.astype(np.uint16) * 100))
    palette = as_png(PIL.Image.fromarray(levels).convert("P"))
    pairs = find([image("a", levels), Image("b", deep, 120, 100), Image("c", palette, 120, 100)])
    assert [pair.relation for pair in pairs] == ["near_duplicate", "identical_pixels", "near_duplicate"]
    assert find([image("a", np.zeros((9, 9), np.uint8)), image("b", np.zeros((8, 9), np.uint8))]) == []


def test_frames_are_taken_off() -> None:
    inner = drawing(5)
    framed = np.pad(np.pad(inner, ((5, 9), (3, 0)), constant_values=0), 12, constant_values=255)
    assert trim(framed).shape == inner.shape
    assert unframed(framed).shape == (framed.shape[0] - 24, framed.shape[1] - 24)
    assert trim(inner).shape == inner.shape
