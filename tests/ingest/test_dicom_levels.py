"""Stored values of DICOM files as they are to be seen, against the formulas of the standard."""

import io
from typing import Any

import numpy as np
import PIL.Image
import pytest
from dicom_samples import dataset, dicom
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space, pack_bits
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage

from tasks.errors import StudyError
from tasks.ingest.dicom import to_png
from tasks.ingest.pictures import read_image

RAMP = np.arange(0, 4096, 4, np.int16).reshape(32, 32)
EMPTY: list[Any] = [None, "", []]


def read_levels(pixels: np.ndarray, **tags: Any) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(to_png(dicom(pixels, **tags), 1000 * 1000)))).astype(int)


def changed(data: bytes, **tags: Any) -> bytes:
    """A DICOM file with other elements, those of None left out."""
    header = dcmread(io.BytesIO(data))
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    sink = io.BytesIO()
    header.save_as(sink)
    return sink.getvalue()


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """DICOM part 3, C.11.2.1.2.1, to 0 to 255."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255


WINDOW = {"WindowCenter": 1000, "WindowWidth": 800}


@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_window_is_as_if_absent(empty: Any) -> None:
    plain = read_levels(RAMP)
    assert (plain.min(), plain.max()) == (0, 255)
    for tags in ({"WindowCenter": empty, "WindowWidth": empty}, WINDOW | {"WindowWidth": empty}):
        assert (read_levels(RAMP, **tags) == plain).all()
    assert (read_levels(RAMP, WindowCenter=500) == plain).all()
    assert (read_levels(RAMP, WindowCenter=500, WindowWidth=0) == plain).all()
    assert (read_levels(RAMP, WindowCenter=["", 500], WindowWidth=["", 80]) == plain).all()
    assert (read_levels(RAMP, **WINDOW, VOILUTFunction=empty) == read_levels(RAMP, **WINDOW)).all()


@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_rescale_is_as_if_absent(empty: Any) -> None:
    plain = read_levels(RAMP, **WINDOW)
    assert np.abs(plain - linear(RAMP, 1000, 800)).max() <= 0.51
    assert (read_levels(RAMP, **WINDOW, RescaleSlope=empty, RescaleIntercept=empty) == plain).all()
    for tags in ({"RescaleIntercept": -500, "RescaleSlope": empty}, {"RescaleIntercept": -500}):
        assert np.abs(read_levels(RAMP, **WINDOW, **tags) - linear(RAMP - 500, 1000, 800)).max() <= 0.51
    for tags in ({"RescaleIntercept": empty, "RescaleSlope": 0.5}, {"RescaleSlope": 0.5}):
        assert np.abs(read_levels(RAMP, **WINDOW, **tags) - linear(RAMP * 0.5, 1000, 800)).max() <= 0.51


def test_of_several_windows_the_first_is_taken() -> None:
    several = read_levels(
        RAMP, WindowCenter=[1000, 40], WindowWidth=[800, 400], WindowCenterWidthExplanation=["A", "B"]
    )
    assert (several == read_levels(RAMP, **WINDOW)).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "OTHER"])
def test_the_functions_of_the_standard(function: str) -> None:
    found = read_levels(RAMP, **WINDOW, VOILUTFunction=function)
    exact = np.clip((RAMP - 1000) / 800 + 0.5, 0, 1) * 255
    sigmoid = 255 / (1 + np.exp(-4 * (RAMP - 1000.0) / 800))
    wanted = {"LINEAR_EXACT": exact, "SIGMOID": sigmoid}.get(function, linear(RAMP, 1000, 800))
    assert np.abs(found - wanted).max() <= 0.51


def test_a_window_of_less_than_one_unit_shows_what_is_between() -> None:
    found = read_levels(RAMP, RescaleSlope=1 / 4096, WindowCenter=0.5, WindowWidth=0.5)
    assert np.abs(found - np.clip((RAMP / 4096 - 0.5) / 0.5 + 0.5, 0, 1) * 255).max() <= 0.51
    assert set(np.unique(read_levels(RAMP, WindowCenter=1000, WindowWidth=1))) == {0, 255}


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("window", [{}, WINDOW])
@pytest.mark.parametrize(
    ("dtype", "value", "stored", "limit"),
    [
        (np.uint16, 63536, 63536, None),
        (np.int16, -2000, -2000, None),
        (np.int16, 63536, -2000, None),  # the same bits, told as unsigned
        (np.uint16, 60_000, 61_000, 65_535),
        (np.uint16, 65_535, 61_000, 60_000),
        (np.uint16, 0, 0, None),
    ],
)
def test_padding_counts_in_no_range(
    dtype: type, value: int, stored: int, limit: int | None, window: dict[str, Any], photometric: str
) -> None:
    pixels = (RAMP + 100).astype(dtype)
    pixels[:, 5] = stored
    tags = window | {"RescaleSlope": 1, "RescaleIntercept": 0, "PhotometricInterpretation": photometric}
    header = dcmread(io.BytesIO(dicom(pixels, **tags)))
    kind = "US" if value >= 0 else "SS"
    header.add_new("PixelPaddingValue", kind, value)
    if limit is not None:
        header.add_new("PixelPaddingRangeLimit", kind, limit)
    sink = io.BytesIO()
    header.save_as(sink)
    found = np.asarray(PIL.Image.open(io.BytesIO(to_png(sink.getvalue(), 10_000)))).astype(int)
    inside = np.arange(32) != 5
    assert (found[:, 5] == 0).all()
    assert (found[:, inside] == read_levels(pixels[:, inside], **tags)).all()


def test_nothing_but_padding_is_black() -> None:
    assert not read_levels(np.full((4, 4), 7, np.uint16), PixelPaddingValue=7).any()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_scaled_by_the_bits_that_are_stored(bits: int, planar: int) -> None:
    pixels = np.linspace(0, 2**bits - 1, 4 * 6 * 3).astype(np.uint8 if bits == 8 else np.uint16).reshape(4, 6, 3)
    data = dicom(pixels, BitsStored=bits, HighBit=bits - 1)
    if planar:
        data = changed(data, PlanarConfiguration=1, PixelData=pixels.transpose(2, 0, 1).tobytes())
    found = np.asarray(PIL.Image.open(io.BytesIO(to_png(data, 1000))))
    assert found.shape == (4, 6, 3)
    assert np.abs(found - pixels * (255 / (2**bits - 1))).max() <= 0.51


def test_luminance_and_chrominance_become_rgb() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    ybr = convert_color_space(pixels, "RGB", "YBR_FULL")
    found = read_levels(ybr, PhotometricInterpretation="YBR_FULL")
    assert np.abs(found - pixels).max() <= 2
    # Pairs of pixels share their colour: Y1 Y2 B R.
    ybr = np.repeat(ybr[:, ::2], 2, 1)
    ybr[..., 0] = np.arange(24).reshape(4, 6) * 10
    packed = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], 2)
    data = changed(dicom(pixels), PhotometricInterpretation="YBR_FULL_422", PixelData=packed.tobytes())
    found = np.asarray(PIL.Image.open(io.BytesIO(to_png(data, 1000))))
    assert np.abs(found.astype(int) - convert_color_space(ybr, "YBR_FULL", "RGB")).max() <= 1


@pytest.mark.parametrize("name", ["HSV", "CMYK", "ARGB", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "SECRET", ""])
def test_other_colour_spaces_are_one_sentence(name: str) -> None:
    data = dicom(np.zeros((4, 6, 3), np.uint8), PhotometricInterpretation=name)
    with pytest.raises(StudyError) as error:
        read_image(data, "row 1")
    assert str(error.value) == (
        "row 1: expected a whole DICOM image, found pixels in a colour space that cannot be read; export the image "
        "anew (uncompressed, as `gdcmconv --raw` does, or as a PNG) or remove its rows."
    )


def palette(bits: int, wide: bool, first: int = 0) -> dict[str, Any]:
    """Red rises, green falls, blue is twice red, in 100 entries; 8 bits in bytes or in words."""
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    rise = np.arange(100) * (1 if bits == 8 else 257)
    for name, entries in {"Red": rise, "Green": rise[::-1], "Blue": 2 * rise}.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [100, first, bits if not wide else 16]
        form = "<u2" if wide or bits == 16 else "u1"
        tags[f"{name}PaletteColorLookupTableData"] = entries.astype(form).tobytes()
    return tags


@pytest.mark.parametrize(("bits", "wide"), [(8, False), (8, True), (16, False)])
@pytest.mark.parametrize("first", [0, 30])
def test_palettes(bits: int, wide: bool, first: int) -> None:
    pixels = np.arange(150, dtype=np.uint8).reshape(10, 15)
    entry = np.clip(pixels.astype(int) - first, 0, 99)
    found = read_levels(pixels, **palette(bits, wide, first))
    assert (found == np.stack([entry, 99 - entry, 2 * entry], 2)).all()


def table(entries: np.ndarray, first: int, bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


@pytest.mark.parametrize(("bits", "count"), [(8, 256), (8, 4096), (12, 1000), (16, 4096)])
@pytest.mark.parametrize("window", [{}, WINDOW])
def test_a_table_comes_before_a_window(bits: int, count: int, window: dict[str, Any]) -> None:
    entries = np.linspace(0, 1, count) ** 2 * (2**bits - 1)
    found = read_levels(RAMP.astype(np.uint16), VOILUTSequence=table(entries, 100, bits), **window)
    wanted = entries.astype(int)[np.clip(RAMP - 100, 0, count - 1)] * 255 / (2**bits - 1)
    assert np.abs(found - wanted).max() <= 0.51


def test_a_table_of_bytes() -> None:
    entries = (np.arange(256) ** 2 // 256).astype(np.uint8)
    packed = table(entries, 0, 8)
    packed[0].LUTData = entries.tobytes()
    pixels = (RAMP // 16).astype(np.uint16)
    for data in (dicom(pixels, VOILUTSequence=packed), dicom(pixels, VOILUTSequence=packed)[132:]):
        assert (np.asarray(PIL.Image.open(io.BytesIO(to_png(data, 10_000)))) == entries[pixels]).all()


def test_a_table_without_a_preamble() -> None:
    entries = np.arange(4096)[::-1]
    data = dicom(RAMP.astype(np.uint16), SOPClassUID=CTImageStorage, VOILUTSequence=table(entries, 0, 12))
    header = dcmread(io.BytesIO(data))
    sink = io.BytesIO()
    Dataset({element.tag: element for element in header}).save_as(sink, implicit_vr=True, little_endian=True)
    for each in (data, data[132:], sink.getvalue()):
        found = np.asarray(PIL.Image.open(io.BytesIO(to_png(each, 10_000))))
        assert np.abs(found - (4095.0 - RAMP) * 255 / 4095).max() <= 0.51


def test_a_table_takes_rescaled_values() -> None:
    entries = np.arange(2000) * 2
    found = read_levels(RAMP, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=table(entries, -1000, 12))
    assert np.abs(found - np.clip(RAMP - 24.0, 0, 1999) * 2 * 255 / 4095).max() <= 0.51
    inverted = read_levels(
        RAMP,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        VOILUTSequence=table(entries, -1000, 12),
        PhotometricInterpretation="MONOCHROME1",
    )
    assert (inverted == 255 - found).all()


def test_an_empty_table_is_as_if_absent() -> None:
    for items in ([], [Dataset()]):
        assert (read_levels(RAMP, VOILUTSequence=Sequence(items), **WINDOW) == read_levels(RAMP, **WINDOW)).all()
        assert (read_levels(RAMP, ModalityLUTSequence=Sequence(), **WINDOW) == read_levels(RAMP, **WINDOW)).all()


def test_enhanced_files_keep_their_table_in_groups() -> None:
    entries = np.arange(4096)[::-1]
    shared = dataset(FrameVOILUTSequence=[dataset(VOILUTSequence=table(entries, 0, 12))])
    found = read_levels(np.stack([RAMP.astype(np.uint16)] * 2), SharedFunctionalGroupsSequence=[shared])
    assert np.abs(found - (4095.0 - RAMP) * 255 / 4095).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_modality_table_of_any_length(dtype: type) -> None:
    pixels = (RAMP // 16).astype(dtype)
    found = read_levels(
        pixels, ModalityLUTSequence=table(np.arange(1000) * 3, 0, 16), WindowCenter=400, WindowWidth=600
    )
    assert np.abs(found - linear(3.0 * (RAMP // 16), 400, 600)).max() <= 0.51


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 0.5, "WindowWidth": 0.8, "VOILUTFunction": "LINEAR_EXACT"}])
def test_float_pixels_with_missing_values(window: dict[str, Any]) -> None:
    values = (RAMP / 4096).astype(np.float32)
    values[3, 4], values[5, 6] = np.nan, np.inf
    header = dcmread(io.BytesIO(dicom(RAMP, **window)))
    for name in ("PixelData", "PixelRepresentation", "BitsStored", "HighBit"):
        delattr(header, name)
    header.BitsAllocated, header.FloatPixelData = 32, values.tobytes()
    sink = io.BytesIO()
    header.save_as(sink)
    found = np.asarray(PIL.Image.open(io.BytesIO(to_png(sink.getvalue(), 10_000)))).astype(int)
    high = float(values[np.isfinite(values)].max())
    whole = np.clip((values - 0.5) / 0.8 + 0.5, 0, 1) * 255 if window else values / high * 255
    assert np.abs(found - np.where(np.isfinite(values), whole, 0)).max() <= 0.51


def test_one_bit_a_pixel() -> None:
    bits = (np.indices((2, 8, 8)).sum(0) % 3 == 0).astype(np.uint8)
    data = changed(dicom(bits), BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=pack_bits(bits), NumberOfFrames=2)
    assert (np.asarray(PIL.Image.open(io.BytesIO(to_png(data, 1000)))) == bits[1] * 255).all()


def test_what_stands_in_unused_bits_is_not_seen() -> None:
    pixels = RAMP.astype(np.uint16)
    noise = (np.indices(pixels.shape).sum(0) % 16).astype(np.uint16) << 12
    tags = {"BitsStored": 12, "HighBit": 11}
    assert (read_levels(pixels | noise, **tags) == read_levels(pixels, **tags)).all()


OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.88.11": "Basic Text SR Storage",
    "1.2.840.10008.5.1.4.1.1.88.59": "Key Object Selection Document Storage",
    "1.2.840.10008.5.1.4.1.1.11.1": "Grayscale Softcopy Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.481.5": "RT Plan Storage",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT Structure Set Storage",
    "1.2.840.10008.5.1.4.1.1.104.1": "Encapsulated PDF Storage",
    "1.2.840.10008.5.1.4.1.1.9.1.1": "12-lead ECG Waveform Storage",
}


@pytest.mark.parametrize("uid", OBJECTS)
def test_objects_without_an_image_are_named(uid: str) -> None:
    header = dcmread(io.BytesIO(dicom(RAMP, SOPClassUID=uid)))
    bare = [element.keyword for element in header if element.tag.group == 0x28] + ["PixelData"]
    with pytest.raises(StudyError) as error:
        read_image(changed(dicom(RAMP, SOPClassUID=uid), **dict.fromkeys(bare)), "row 1")
    assert str(error.value) == (
        f"row 1: expected a whole DICOM image, found a DICOM file without an image ({OBJECTS[uid]}); name the file of "
        "an image or remove its rows."
    )


def test_an_object_of_an_own_kind_is_not_quoted() -> None:
    secret = "1.2.826.0.1.3680043.8.498.7"
    with pytest.raises(StudyError, match="found a DICOM file without an image; name") as error:
        read_image(changed(dicom(RAMP, SOPClassUID=secret), PixelData=None), "row 1")
    assert secret not in str(error.value)
