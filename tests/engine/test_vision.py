"""Cached features stand for the pixels exactly; images of any kind become 8-bit RGB."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from engine_samples import CASES, IMAGES, logits
from family_samples import Twin, every_family

from tasks.engine.base import Base
from tasks.engine.batch import collate, encode
from tasks.engine.prompt import build_prompt
from tasks.engine.vision import FEATURES, Features, encode_images, gather_features, load_features
from tasks.records import Image
from tasks.records.pixels import to_rgb


@pytest.mark.slow
@every_family
@pytest.mark.parametrize(("number", "k"), [(n, 0) for n in range(len(IMAGES))] + [(0, 1), (2, 2), (5, 3)])
def test_features_give_the_logits_of_the_pixels(
    twin: Twin, tiny_base: Base, features: Features, number: int, k: int
) -> None:
    retrieved = [CASES[(number + 1 + i) % len(CASES)] for i in range(k)]
    (example,) = encode(tiny_base, features, [build_prompt(CASES[number], retrieved)])
    batch = collate(tiny_base, features, [replace(example, answer_ids=())])
    turns = [*((case.question, case.answer) for case in reversed(retrieved)), (CASES[number].question, None)]
    images = [case.image_id for case in [*reversed(retrieved), CASES[number]]]
    expected = twin.row(tiny_base, turns, images, None)
    others = expected.keys() - {"pixel_values"}
    assert others | {"mm_encoder_outputs"} == batch.inputs.keys() - {"position_ids"}
    assert all(torch.equal(batch.inputs[name], expected[name]) for name in others)
    found = logits(tiny_base.model, batch.inputs)
    torch.testing.assert_close(found, logits(tiny_base.model, expected), rtol=0, atol=1e-5)
    # An image that changed would have been noticed.
    blank = expected | {"pixel_values": torch.zeros_like(expected["pixel_values"])}
    assert (logits(tiny_base.model, blank) - found).abs().max() > 0.1


def test_sizes_and_shapes_differ(features: Features) -> None:
    assert len(set(features.grids.values())) == len(IMAGES) - 1  # the tiny square is enlarged to the other's grid
    for image in IMAGES:
        _, height, width = features.grids[image.id]
        assert len(features.of(image.id)) == features.tokens(image.id) == height * width // 4
    assert len(features.rows) == sum(features.tokens(image.id) for image in IMAGES)
    assert features.pooled(["image-2", "image-0"]).shape == (2, 64)
    mean = features.of("image-2").double().mean(0).numpy()
    np.testing.assert_allclose(features.pooled(["image-2", "image-0"])[0], mean, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(tiny_base: Base, features: Features) -> None:
    for batch_size in (1, 4, 32):
        again = encode_images(tiny_base, list(reversed(IMAGES)), batch_size)
        for image in IMAGES:
            torch.testing.assert_close(again.of(image.id), features.of(image.id), rtol=0, atol=1e-5)


def test_the_same_images_give_the_same_bytes(tiny_base: Base) -> None:
    assert len({encode_images(tiny_base, IMAGES[:3]).to_bytes() for _ in range(12)}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_keeps_every_bit(features: Features, tmp_path: Path, dtype: torch.dtype) -> None:
    kept = Features(features.rows.to(dtype), features.starts, features.grids, features.merge)
    (tmp_path / FEATURES).write_bytes(kept.to_bytes())
    found = load_features(tmp_path / FEATURES)
    assert found.rows.dtype == dtype
    assert torch.equal(found.rows.view(torch.uint8), kept.rows.view(torch.uint8))
    assert (found.starts, found.grids, found.merge) == (kept.starts, kept.grids, kept.merge)
    assert all(torch.equal(found.of(image.id), kept.of(image.id)) for image in IMAGES)


def test_gathered_images_are_those_they_were(features: Features) -> None:
    other = Features(features.rows + 1, features.starts, features.grids, features.merge)
    found = gather_features({"a": (features, "image-2"), "b": (other, "image-2"), "c": (features, "image-0")})
    for name, source, image_id in (("a", features, "image-2"), ("b", other, "image-2"), ("c", features, "image-0")):
        assert torch.equal(found.of(name), source.of(image_id))
        assert found.grids[name] == features.grids[image_id]
    assert len(found.rows) == 2 * features.tokens("image-2") + features.tokens("image-0")


def test_a_file_is_mapped_not_read(tmp_path: Path) -> None:
    maps = Path("/proc/self/smaps")
    if not maps.exists():
        pytest.skip("only Linux tells what is mapped")
    rows = torch.zeros((1 << 18, 16))  # 16 MiB
    path = tmp_path / FEATURES
    path.write_bytes(Features(rows, {"one": 0}, {"one": (1, 2, 2)}, 2).to_bytes())
    found = load_features(path)
    held = maps.read_text().split(str(path))
    assert len(held) > 1
    resident = [int(line.split()[1]) for part in held[1:] for line in part.splitlines() if line.startswith("Rss:")]
    assert resident[0] < 1 << 13  # KiB
    assert found.of("one").sum() == 0


def file_of(image: PIL.Image.Image, form: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def gray(data: bytes) -> np.ndarray:
    """The levels of an image that ought to come out gray, `(height, width)`."""
    found = to_rgb(data)
    assert found.mode == "RGB"
    values = np.asarray(found)
    assert values.dtype == np.uint8
    assert (values == values[..., :1]).all()
    return values[..., 0].astype(int)


RAMP = np.linspace(0, 1, 48).reshape(6, 8)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("low", "high"), [(0, 65535), (1000, 5095), (30000, 30010)])
def test_sixteen_bits_are_scaled_from_their_range(form: str, low: int, high: int) -> None:
    levels = np.round(low + RAMP * (high - low)).astype(np.uint16)
    found = gray(file_of(PIL.Image.fromarray(levels), form))
    assert found.shape == (6, 8)
    assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_allclose(found, (levels.astype(float) - low) * 255 / (high - low), atol=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_deep_tiffs_are_scaled_from_their_range(dtype: type) -> None:
    found = gray(file_of(PIL.Image.fromarray((RAMP * 4000 - 1000).astype(dtype)), "TIFF"))
    np.testing.assert_allclose(found, RAMP * 255, atol=1)


def test_a_constant_deep_image_is_black() -> None:
    assert not gray(file_of(PIL.Image.fromarray(np.full((6, 8), 40_000, np.uint16)), "PNG")).any()


def test_missing_values_of_a_float_image_leave_the_rest() -> None:
    levels = (RAMP * 10).astype(np.float32)
    levels[0, 0], levels[0, 1], levels[0, 2] = np.nan, np.inf, -np.inf
    found = gray(file_of(PIL.Image.fromarray(levels), "TIFF"))
    assert found[0, :3].tolist() == [0, 255, 0]
    low = float(levels[0, 3])
    np.testing.assert_allclose(found[1:], (levels[1:] - low) * 255 / (10 - low), atol=1)
    assert not gray(file_of(PIL.Image.fromarray(np.full((6, 8), np.nan, np.float32)), "TIFF")).any()


def test_one_bit_is_black_and_white() -> None:
    levels = np.indices((6, 8)).sum(0) % 2 == 0
    assert (gray(file_of(PIL.Image.fromarray(levels), "PNG")) == levels * 255).all()


def test_eight_bits_are_kept() -> None:
    levels = (RAMP * 100 + 50).astype(np.uint8)
    assert (gray(file_of(PIL.Image.fromarray(levels), "PNG")) == levels).all()


COLOURS = np.array([[[200, 30, 40], [10, 220, 60], [20, 40, 210], [250, 240, 5]]], np.uint8).repeat(16, 0).repeat(16, 1)


@pytest.mark.parametrize(
    ("mode", "form", "options", "tolerance"),
    [
        ("RGB", "PNG", {}, 0),
        ("RGBA", "PNG", {}, 0),
        ("P", "PNG", {}, 0),
        ("P", "GIF", {}, 0),
        ("CMYK", "TIFF", {}, 1),
        ("CMYK", "JPEG", {"quality": 95, "subsampling": 0}, 8),
        ("RGB", "JPEG", {"quality": 95, "subsampling": 0}, 8),
    ],
)
def test_colours_are_kept(mode: str, form: str, options: dict[str, Any], tolerance: int) -> None:
    image = PIL.Image.fromarray(COLOURS)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    data = file_of(image, form, **options)
    assert PIL.Image.open(io.BytesIO(data)).mode == mode
    found = to_rgb(data)
    assert found.mode == "RGB"
    # Away from the edges, where JPEG smears.
    np.testing.assert_allclose(
        np.asarray(found)[4:-4, 8::16].astype(int), COLOURS[4:-4, 8::16].astype(int), atol=tolerance
    )


def test_every_kind_of_image_passes_the_tower(tiny_base: Base) -> None:
    files = [
        file_of(PIL.Image.fromarray((RAMP * 60_000).astype(np.uint16)), "PNG"),
        file_of(PIL.Image.fromarray(COLOURS).convert("CMYK"), "JPEG"),
        file_of(PIL.Image.fromarray(RAMP > 0.5), "PNG"),
    ]
    found = encode_images(tiny_base, [Image(str(n), data, 0, 0) for n, data in enumerate(files)])
    assert found.rows.isfinite().all()
    assert list(found.starts) == ["0", "1", "2"]
