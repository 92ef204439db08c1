"""What picture a file shows: one answer for model, encoders, audit, maps and page, right for every kind of file."""

import base64
import io
import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.audit.fingerprint import fingerprint
from tasks.engine.attribution.occlusion import cover
from tasks.engine.base import Base
from tasks.engine.vision import encode_images
from tasks.errors import StudyError
from tasks.ingest.pictures import read_image
from tasks.records import Image, write_table
from tasks.records.pixels import PictureError, pixel_digest, pixel_levels, to_gray, to_rgb
from tasks.report.page.pictures import pictures

HERE = Path(__file__).parents[2]
RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)
COLOURS = np.stack([RAMP * 255, RAMP[::-1] * 255, RAMP[:, ::-1] ** 2 * 255], 2).round().astype(np.uint8)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}
"""What a camera stores for each EXIF orientation: where the upright picture's rows and columns come to lie."""


def file_of(image: PIL.Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(sink, form, **options)
    return sink.getvalue()


def exif(orientation: int) -> PIL.Image.Exif:
    found = PIL.Image.Exif()
    found[0x0112] = orientation
    return found


def turned(orientation: int, form: str = "PNG", pixels: np.ndarray = COLOURS) -> bytes:
    """A file that shows the pixels once its orientation is applied."""
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(form, {})
    return file_of(np.ascontiguousarray(TURNS[orientation](pixels)), form, exif=exif(orientation), **lossless)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_orientation_is_applied_everywhere(orientation: int, form: str, tmp_path: Path) -> None:
    data = turned(orientation, form)
    error = 12 if form == "JPEG" else 0
    for found in (np.asarray(to_rgb(data)), pixel_levels(data)):
        assert np.abs(found.astype(int) - COLOURS).max() <= error
    read = read_image(data, "row 1")
    assert (read.width, read.height) == (64, 48)
    image, upright = Image("a", *read), Image("b", file_of(COLOURS), 64, 48)
    assert fingerprint(image).size == (64, 48)
    for one, other in zip(fingerprint(image).pictures, fingerprint(upright).pictures, strict=True):
        assert (one.astype(float) * other).sum() > 0.999
    assert np.abs(page_picture(image, tmp_path).astype(int) - COLOURS).max() < 40  # JPEG


def page_picture(image: Image, folder: Path) -> np.ndarray:
    """The pixels that a hospital's page embeds, as a browser shows them."""
    with (folder / "images.parquet").open("wb") as sink:
        write_table(sink, Image, [image])
    (found,) = pictures(folder / "images.parquet", [image.id]).values()
    embedded = PIL.Image.open(io.BytesIO(base64.b64decode(found.data.split(",", 1)[1])))
    assert embedded.mode == "RGB"
    assert embedded.getexif() == {}
    assert embedded.size == (found.width, found.height)
    return np.asarray(embedded)


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_model_is_given_the_upright_picture(tiny_base: Base, orientation: int) -> None:
    images = [Image("a", turned(orientation), 64, 48), Image("b", file_of(COLOURS), 64, 48)]
    seen = encode_images(tiny_base, images)
    assert seen.grids["a"] == seen.grids["b"]
    assert (seen.of("a") == seen.of("b")).all()


def test_a_covered_picture_is_not_turned_again() -> None:
    for orientation in TURNS:
        painted = cover(Image("a", turned(orientation), 64, 48), [(0, 0, 10, 5)], "b")
        assert (painted.width, painted.height) == (64, 48)
        found = np.asarray(to_rgb(painted.data))
        assert (found[5:] == COLOURS[5:]).all()
        assert len(np.unique(found[:5, :10].reshape(-1, 3), axis=0)) == 1


ALPHA = (RAMP[:, ::-1] * 255).round().astype(np.uint8)
GRAY = (RAMP * 200 + 20).round().astype(np.uint8)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """By the definition of compositing, `(48, 64, 3)`."""
    colours = np.broadcast_to(colours if colours.ndim == 3 else colours[..., None], (48, 64, 3)).astype(float)
    share = alpha[..., None].astype(float) / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_shows_white_behind_it(form: str, tmp_path: Path) -> None:
    data = file_of(np.dstack([COLOURS, ALPHA]), form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    wanted = over_white(COLOURS, ALPHA)
    assert np.abs(np.asarray(to_rgb(data)) - wanted).max() <= 1
    assert np.abs(page_picture(Image("a", data, 64, 48), tmp_path) - wanted).max() < 40
    opaque = file_of(np.dstack([COLOURS, np.full_like(ALPHA, 255)]))
    assert (np.asarray(to_rgb(opaque)) == COLOURS).all()


def test_gray_with_transparency() -> None:
    data = file_of(PIL.Image.merge("LA", [PIL.Image.fromarray(GRAY), PIL.Image.fromarray(ALPHA)]))
    assert np.abs(np.asarray(to_rgb(data)) - over_white(GRAY, ALPHA)).max() <= 1


@pytest.mark.parametrize("colours", [COLOURS, GRAY])
def test_colours_stored_as_multiplied_by_their_opacity(colours: np.ndarray) -> None:
    strong = np.maximum(ALPHA, 32)  # of weak ones 8 bits keep little
    stored = np.dstack([np.rint(colours * (strong / 255).reshape(48, 64, *[1] * (colours.ndim - 2))), strong])
    data = patched(file_of(stored.astype(np.uint8), "TIFF"), 338, 1)
    assert np.abs(np.asarray(to_rgb(data)) - over_white(colours, strong)).max() <= 4


def patched(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag that holds one short."""
    start = struct.pack("<HHI", tag, 3, 1)
    place = data.index(start) + len(start)
    return data[:place] + struct.pack("<H", value) + data[place + 2 :]


@pytest.mark.parametrize("transparency", [7, bytes([*range(0, 256, 2)])])
def test_a_palette_with_transparency(transparency: int | bytes) -> None:
    image = PIL.Image.fromarray((RAMP * 127).astype(np.uint8)).convert("P")
    image.putpalette([value for place in range(128) for value in (place, 255 - place, 2 * place)])
    indices = np.asarray(image)
    colours = np.stack([indices, 255 - indices, 2 * indices], 2).astype(np.uint8)
    alpha = np.where(indices == 7, 0, 255) if transparency == 7 else 2 * indices.astype(int)
    found = to_rgb(file_of(image, transparency=transparency))
    assert np.abs(np.asarray(found) - over_white(colours, alpha)).max() <= 1


@pytest.mark.parametrize("deep", [False, True])
def test_one_level_that_is_transparent(deep: bool) -> None:
    levels = GRAY if not deep else (RAMP * 4000 + 1000).astype(np.uint16)
    clear = int(levels[20, 30])
    data = file_of(levels, transparency=clear)
    found = np.asarray(to_rgb(data))
    assert (np.asarray(to_gray(data, 8)) == found[..., 0]).all()
    plain = np.asarray(to_rgb(file_of(levels)))
    assert (found[levels == clear] == 255).all()
    assert (found[levels != clear] == plain[levels != clear]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiffs_whose_small_values_are_bright(dtype: type) -> None:
    levels = (RAMP * 255).round().astype(dtype)
    found = np.asarray(to_rgb(patched(file_of(levels, "TIFF"), 262, 0)))
    assert np.abs(found[..., 0] - (255 - levels.astype(float))).max() <= 1


@pytest.mark.parametrize(("dtype", "high"), [(np.uint32, 4_000_000_000), (np.int32, 2_000_000_000)])
def test_levels_of_32_bits(dtype: type, high: int) -> None:
    levels = (RAMP * high - (high // 2 if dtype == np.int32 else 0)).astype(dtype)
    data = file_of(levels.astype(np.int64).astype(np.int32), "TIFF")
    data = patched(data, 339, 1) if dtype == np.uint32 else data
    assert np.abs(np.asarray(to_rgb(data))[..., 0] - RAMP * 255).max() < 1.1


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_either_byte_order(order: str) -> None:
    levels = (RAMP * 60_000 + 300).astype(np.uint16)
    mode = "I;16" if order == "<" else "I;16B"
    data = file_of(PIL.Image.frombytes(mode, (64, 48), levels.astype(f"{order}u2").tobytes()), "TIFF")
    assert PIL.Image.open(io.BytesIO(data)).mode == mode
    assert np.abs(np.asarray(to_rgb(data))[..., 1] - RAMP * 255).max() < 1.1


def test_of_several_frames_the_first_is_shown() -> None:
    frames = [PIL.Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        more = {"lossless": True} if form == "WEBP" else {}
        found = np.asarray(to_rgb(file_of(frames[0], form, save_all=True, append_images=frames[1:], **more)))
        assert (found == (255, 0, 0)).all(), form


@pytest.mark.parametrize("where", ["row 1", "data.csv, row 2"])
def test_colours_that_cannot_be_converted_are_one_sentence(where: str) -> None:
    data = file_of(PIL.Image.new("LAB", (6, 4)), "TIFF")
    with pytest.raises(PictureError, match="an image in LAB colours"):
        to_rgb(data)
    with pytest.raises(StudyError) as error:
        read_image(data, where)
    assert str(error.value) == (
        f"{where}: expected a whole image, found an image in LAB colours, which cannot be read; save it as RGB or "
        "remove its rows."
    )


BROKEN = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200))


def test_a_broken_exif_changes_nothing_and_warns_of_nothing() -> None:
    data, plain = file_of(COLOURS, "JPEG", exif=BROKEN), file_of(COLOURS, "JPEG")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert (np.asarray(to_rgb(data)) == np.asarray(to_rgb(plain))).all()
        assert (np.asarray(to_gray(data, 16)) == np.asarray(to_gray(plain, 16))).all()
        read_image(data, "row 1")
    assert warned == []


def test_threads_leave_the_warnings_as_they_were() -> None:
    data, before = file_of(COLOURS, "JPEG", exif=BROKEN), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(to_rgb, [data] * 400))
    assert list(warnings.filters) == before


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_gray_is_the_same_picture(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]))
    forms = {"L": "PNG TIFF JPEG", "RGB": "PNG TIFF JPEG WEBP BMP", "CMYK": "TIFF JPEG", "F": "TIFF", "I": "TIFF"}
    form = data.draw(st.sampled_from(forms.get(mode, "PNG TIFF").split()))
    orientation = data.draw(st.sampled_from(list(TURNS)))
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    image = PIL.Image.fromarray((RAMP * 9000 - 20 * (mode == "I")).astype(deep) if deep else COLOURS)
    image = image if deep else image.convert(mode)
    file = file_of(image, form, **({} if form == "BMP" else {"exif": exif(orientation)}))
    whole, gray = to_rgb(file).convert("L"), to_gray(file, 1000)
    assert gray.mode == "L"
    assert gray.size == whole.size == ((48, 64) if orientation > 4 and form != "BMP" else (64, 48))
    assert np.abs(np.asarray(gray, int) - np.asarray(whole, int)).max() <= (3 if form == "JPEG" else 0)
    small = to_gray(file, 8)
    assert small.size == (gray.size if form != "JPEG" else tuple(side // 4 for side in gray.size))


def test_the_digest_tells_deep_pictures_apart_by_their_levels() -> None:
    levels = (RAMP * 1000).astype(np.float32)
    one, double = file_of(levels, "TIFF"), file_of(2 * levels, "TIFF")
    assert (np.asarray(to_rgb(one)) == np.asarray(to_rgb(double))).all()
    assert pixel_digest(one) != pixel_digest(double)
    assert pixel_digest(one) == pixel_digest(file_of(levels, "TIFF", compression="tiff_lzw"))
    assert pixel_digest(turned(6)) == pixel_digest(file_of(COLOURS))


def test_what_is_saved_of_a_picture_holds_none_of_its_comments() -> None:
    data = file_of(COLOURS, "JPEG", comment=b"Zwetschgenknoedel")
    assert b"Zwetschgenknoedel" in data
    assert b"Zwetschgenknoedel" not in file_of(to_rgb(data), "JPEG")


def test_nobody_else_opens_images() -> None:
    opening = {
        path.relative_to(HERE).as_posix()
        for folder in ("flows", "tasks")
        for path in (HERE / folder).rglob("*.py")
        if "Image.open(" in path.read_text(encoding="utf-8")
    }
    assert opening == {"tasks/records/pixels.py", "tasks/explain/examination.py"}  # the second, masks of our own
