"""DICOM pixels against pydicom's own windowing, and nothing but pixels."""

import io
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pydicom.data
import pytest
from dicom_samples import CANARY, dataset, dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing, get_decoder
from pydicom.uid import CTImageStorage

from tasks.errors import StudyError
from tasks.ingest.dicom import to_png
from tasks.ingest.pictures import read_image

RAMP = np.arange(0, 4096, 16, np.int16).reshape(16, 16)
SAMPLES = Path(pydicom.data.__file__).parent / "test_files"


def read_levels(data: bytes) -> np.ndarray:
    image = PIL.Image.open(io.BytesIO(to_png(data, 1000 * 1000)))
    assert image.format == "PNG"
    assert image.info == {}
    return np.asarray(image)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_rescale_and_window_are_those_of_pydicom(function: str | None) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [1040, 40], "WindowWidth": [2000, 400]}
    if function:
        tags["VOILUTFunction"] = function
    data = dicom(RAMP, **tags)
    header = pydicom.dcmread(io.BytesIO(data))
    wanted = apply_windowing(apply_modality_lut(header.pixel_array, header), header)
    header.PixelRepresentation = 0
    low, high = -2 * 2**15 - 1024, 2 * (2**15 - 1) - 1024  # what pydicom scales to: all values there could be
    assert np.abs(read_levels(data) - (wanted - low) / (high - low) * 255).max() <= 1


def test_without_a_window_the_full_range_is_shown() -> None:
    assert (read_levels(dicom(RAMP)).min(), read_levels(dicom(RAMP)).max()) == (0, 255)
    assert not read_levels(dicom(np.full((4, 4), 7, np.uint16))).any()


def test_monochrome1_is_inverted() -> None:
    assert (read_levels(dicom(RAMP, PhotometricInterpretation="MONOCHROME1")) == 255 - read_levels(dicom(RAMP))).all()


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 1), (5, 2)])
def test_the_middle_frame_is_shown(frames: int, middle: int) -> None:
    pixels = np.zeros((frames, 4, 4), np.uint8)
    for number in range(frames):
        pixels[number, number // 4, number % 4] = 1
    assert np.flatnonzero(read_levels(dicom(pixels))).tolist() == [middle]


def test_enhanced_files_keep_their_window_in_groups() -> None:
    pixels = np.stack([RAMP] * 3)
    per_frame = [dataset(FrameVOILUTSequence=[dataset(WindowCenter=c, WindowWidth=100)]) for c in (0, 2000, 0)]
    rescale = dataset(PixelValueTransformationSequence=[dataset(RescaleSlope=1, RescaleIntercept=100)])
    found = read_levels(
        dicom(pixels, PerFrameFunctionalGroupsSequence=per_frame, SharedFunctionalGroupsSequence=[rescale])
    )
    assert (found == read_levels(dicom(RAMP, WindowCenter=1900, WindowWidth=100))).all()


def test_colours_are_kept() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (read_levels(dicom(pixels)) == pixels).all()


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("MR_small_jpeg_ls_lossless", "JPEG-LS Lossless Image Compression"),
        ("JPEGLSNearLossless_08", "JPEG-LS Lossy (Near-Lossless) Image Compression"),
    ],
)
def test_a_compression_that_nothing_here_reads_is_named(name: str, compression: str) -> None:
    if get_decoder(pydicom.dcmread(SAMPLES / f"{name}.dcm").file_meta.TransferSyntaxUID).is_available:
        pytest.skip("somebody installed a decoder for it")
    message = f"found pixels that cannot be decoded, compressed by {re.escape(compression)}; export the image anew"
    with pytest.raises(StudyError, match=message):
        read_image(SAMPLES / f"{name}.dcm", "row 1")


def test_an_unknown_compression_is_not_quoted() -> None:
    secret = f"1.2.{'.'.join(str(ord(letter)) for letter in 'secr')}"
    data = dicom(RAMP).replace(b"1.2.840.10008.1.2.1\0", secret.encode().ljust(20, b"\0"))
    with pytest.raises(StudyError, match="compressed by an unknown transfer syntax") as error:
        read_image(data, "row 1")
    assert secret not in str(error.value)


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_a_preamble_are_read(implicit: bool) -> None:
    header = pydicom.dcmread(io.BytesIO(dicom(RAMP, SOPClassUID=CTImageStorage)))
    sink = io.BytesIO()
    bare = Dataset({element.tag: element for element in header})
    bare.save_as(sink, implicit_vr=implicit, little_endian=True)
    data = sink.getvalue()
    assert data[128:132] != b"DICM"
    assert (read_levels(data) == read_levels(dicom(RAMP))).all()
    picture = read_image(data, "row 1")
    assert CANARY.encode() in data
    assert CANARY.encode() not in picture.data
    assert (read_levels(dicom(RAMP)[132:]) == read_levels(dicom(RAMP))).all()  # the preamble alone is gone


def test_what_only_begins_like_dicom_is_no_image() -> None:
    for data in (b"\x08\0\x05\0CS\x0a\0 and no more", b"\x02\0\0\0", b"\x08\0" + bytes(200), b"\x08\0 notes"):
        with pytest.raises(StudyError, match=r"^row 1: expected a whole (DICOM )?image, found"):
            read_image(data, "row 1")


@pytest.mark.parametrize("error", [MemoryError, NameError])
def test_what_no_file_is_to_blame_for_goes_on(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for place in ("tasks.ingest.dicom.pixel_array", "PIL.PngImagePlugin.PngImageFile.load"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(error):
                read_image(dicom(RAMP), "row 1")


def test_too_many_pixels_are_refused_by_the_header() -> None:
    with pytest.raises(StudyError, match="found 3,600,000,000 pixels, more than 80,000,000"):
        read_image(dicom(RAMP, Rows=60_000, Columns=60_000), "row 1")


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(data=st.data())
def test_damage_raises_study_errors_that_quote_nothing(data: st.DataObject) -> None:
    whole = bytearray(dicom(RAMP, WindowCenter=100, WindowWidth=200))
    for place in data.draw(st.lists(st.integers(132, len(whole) - 1), min_size=1, max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(132, len(whole)))
    try:
        found = read_image(bytes(whole[:cut]), "row 1")
    except StudyError as error:
        assert CANARY not in str(error)
        assert "\n" not in str(error)
    else:
        assert CANARY.encode() not in found.data
