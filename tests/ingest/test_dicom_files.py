"""What comes of each file that pydicom ships to test itself: a picture, or one sentence."""

import io
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder

from tasks.errors import StudyError
from tasks.ingest.pictures import read_image

FOLDER = Path(pydicom.data.__file__).parent
FILES = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
)

ENDINGS = (".json", ".txt", ".md", ".icc", ".dump", ".gz", "README")
NO_IMAGE_FILE = {"ExplVR_BigEndNoMeta.dcm", "no_meta.dcm"}
"""Without a preamble, big endian or with a stray byte first: nothing tells that they are DICOM."""
WITHOUT_AN_IMAGE = {
    "ExplVR_LitEndNoMeta.dcm": "RT Ion Plan Storage",
    "UN_sequence.dcm": "CT Image Storage",
    "chrJapMulti.dcm": "Computed Radiography Image Storage",
    "chrJapMultiExplicitIR6.dcm": "Computed Radiography Image Storage",
    "chrKoreanMulti.dcm": "Computed Radiography Image Storage",
    "chrSQEncoding.dcm": "MR Image Storage",
    "chrSQEncoding1.dcm": "MR Image Storage",
    "empty_charset_LEI.dcm": None,
    "no_meta_group_length.dcm": "RT Image Storage",
    "priv_SQ.dcm": "MR Image Storage",
    "reportsi.dcm": "Basic Text SR Storage",
    "reportsi_with_empty_number_tags.dcm": "Basic Text SR Storage",
    "rtplan.dcm": "RT Plan Storage",
    "rtplan_truncated.dcm": "RT Plan Storage",
    "rtstruct.dcm": "RT Structure Set Storage",
    "test-SR.dcm": "Comprehensive SR Storage",
    "waveform_ecg.dcm": "12-lead ECG Waveform Storage",
}
"""And what they are, by the standard; images among them had their pixels taken out."""
DAMAGED = {"meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"}
"""Pixels, but not how many rows and columns of them."""
UNDECODABLE = {"MR_truncated.dcm", "badVR.dcm"}
COMPRESSED = {
    "GDCMJ2K_TextGBR.dcm": "JPEG 2000 Image Compression (Lossless Only)",
    "JPEG-lossy.dcm": "JPEG Extended (Process 2 and 4)",
    "JPEG2000-embedded-sequence-delimiter.dcm": "JPEG 2000 Image Compression",
    "JPEGLSNearLossless_08.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "JPEGLSNearLossless_16.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "JPGExtended.dcm": "JPEG Extended (Process 2 and 4)",
    "MR_small_jpeg_ls_lossless.dcm": "JPEG-LS Lossless Image Compression",
    "SC_rgb_jls_lossy_line.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "SC_rgb_jls_lossy_sample.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "SC_rgb_jpeg_gdcm.dcm": "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
}
"""Beyond Pillow, the one decoder that is always there."""
FLAT = {"17166", "17196"}
"""CT of bone at 16 x 16 pixels: all of it lies above the first window."""


def sentence(file: str) -> str | None:
    """What is found in a file that shows no picture, as the message says it."""
    name = file.split("/")[-1]
    if name.endswith(ENDINGS) or name in NO_IMAGE_FILE:
        return f"a whole image, found {(FOLDER / file).stat().st_size:,} bytes that are no image; restore"
    if file.startswith("palettes/"):
        return "a whole DICOM image, found a DICOM file without an image (Color Palette Storage); name"
    if name.startswith("DICOMDIR"):
        return "a whole DICOM image, found a DICOM file without an image (Media Storage Directory Storage); name"
    if "/TINY_ALPHA/" in file:
        return "a whole DICOM image, found a DICOM file without an image (CT Image Storage); name"
    if name in WITHOUT_AN_IMAGE:
        kind = f" ({WITHOUT_AN_IMAGE[name]})" if WITHOUT_AN_IMAGE[name] else ""
        return f"a whole DICOM image, found a DICOM file without an image{kind}; name"
    if name in DAMAGED:
        return "a whole DICOM image, found a damaged file; export"
    if name in UNDECODABLE:
        return "a whole DICOM image, found pixels that cannot be decoded; export"
    if name in COMPRESSED:
        return f"a whole DICOM image, found pixels that cannot be decoded, compressed by {COMPRESSED[name]}; export"
    return None


def header_of(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(path)


def test_no_file_is_missing() -> None:
    assert len(FILES) > 180
    assert {*WITHOUT_AN_IMAGE, *NO_IMAGE_FILE, *DAMAGED, *UNDECODABLE, *COMPRESSED, *FLAT} <= {
        file.split("/")[-1] for file in FILES
    }


@pytest.mark.parametrize("file", FILES)
def test_a_picture_or_one_sentence(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    expected, path = sentence(file), FOLDER / file
    if path.name in COMPRESSED:
        plugins = get_decoder(header_of(path).file_meta.TransferSyntaxUID).available_plugins
        if set(plugins) - {"pillow"}:
            pytest.skip("somebody installed a decoder for it")
    if expected is not None:
        with pytest.raises(StudyError) as error:
            read_image(path, "row 1")
        assert str(error.value).startswith(f"row 1, image {path}: expected {expected}")
        assert "\n" not in str(error.value)
    else:
        picture, header = read_image(path, "row 1"), header_of(path)
        pixels = np.asarray(PIL.Image.open(io.BytesIO(picture.data)))
        assert (picture.width, picture.height) == (header.Columns, header.Rows)
        assert pixels.shape[2:] == (() if header.PhotometricInterpretation.startswith("MONOCHROME") else (3,))
        assert (pixels.std() == 0) == (path.name in FLAT)
    assert capfd.readouterr() == ("", "")
