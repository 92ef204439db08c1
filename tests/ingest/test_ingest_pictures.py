"""Images are taken as published, once they were decoded to their last pixel."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_samples import picture, png_header, write_bytes

from tasks.errors import StudyError
from tasks.ingest.pictures import Picture, read_image


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("P", "GIF")]
)
def test_bytes_are_kept_whatever_the_mode(tmp_path: Path, mode: str, form: str) -> None:
    data = picture(7, mode, (8, 6), form)
    write_bytes(tmp_path / "image", data)
    assert read_image(tmp_path / "image", "row 1") == Picture(data, 8, 6)
    assert read_image(data, "row 1") == Picture(data, 8, 6)


def test_sixteen_bit_images_are_accepted(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    found = read_image(tmp_path / "deep.png", "row 1")
    assert (found.width, found.height) == (8, 6)


def test_missing_file_and_folder_are_named_with_their_row(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^train.json, row 4, image .*x.jpg: expected a whole image, found no such"):
        read_image(tmp_path / "x.jpg", "train.json, row 4")
    with pytest.raises(StudyError, match=r"found an unreadable file .*restore the file"):
        read_image(tmp_path, "train.json, row 4")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_truncated_image_is_refused(form: str) -> None:
    sink = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 90).save(sink, form)
    whole = sink.getvalue()
    with pytest.raises(StudyError, match=r"^train.json, row 2: expected a whole image, found a damaged image"):
        read_image(whole[: len(whole) // 2], "train.json, row 2")


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(StudyError, match=rf"^train.json, row 2: expected a whole image, found {len(data)} bytes"):
        read_image(data, "train.json, row 2")


@pytest.mark.parametrize("side", [8_950, 9_500, 50_000])
def test_too_large_an_image_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(StudyError, match=r"^train.json, row 2: expected an image of at most 80,000,000 pixels, found"):
        read_image(png_header(side, side), "train.json, row 2")


def test_extreme_aspect_ratio_is_refused() -> None:
    assert read_image(picture(size=(1000, 5)), "row 1").width == 1000
    with pytest.raises(StudyError, match=r"row 1: expected sides that differ .* 200, found 1,005 x 5 pixels"):
        read_image(picture(size=(1005, 5)), "row 1")


@settings(deadline=None)  # the machine may be busy
@given(data=st.data())
def test_damaged_bytes_raise_nothing_but_study_errors(data: st.DataObject) -> None:
    whole = bytearray(picture(9, form=data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]))))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    try:
        found = read_image(bytes(whole), "row 1")
    except StudyError as error:
        assert str(error).startswith("row 1: expected ")
        assert "\n" not in str(error)
    else:
        assert found.data == bytes(whole)
