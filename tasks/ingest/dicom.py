"""DICOM: the pixels of a file as an 8-bit PNG, and nothing else of it.

Only the tags that say how to show the pixels are parsed. Those about the patient are never read, so that they can
get into no artifact, message or log.
"""

import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary

from tasks.errors import OURS

TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ModalityLUTSequence"),
    *("RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
]
GROUPS = {
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
"""Where a multi-frame file of the enhanced kind keeps what others keep at the top."""


FIRST_TYPES = (b"UL", b"OB", b"UI", b"SH", b"CS", b"DA", b"TM", b"DT", b"LO", b"PN")
"""Of the elements that a file without a preamble can begin with."""


class DicomError(Exception):
    """Why a file's pixels cannot be had: a text that quotes nothing of the file."""


@dataclass(frozen=True)
class Shown:
    """How gray values are meant to be seen."""

    window: tuple[float, float] | None
    """Centre and width, in the values' own unit; None for their full range."""
    function: str
    """`LINEAR`, `LINEAR_EXACT` or `SIGMOID`."""
    inverted: bool
    """Whether small values are bright."""


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: by its preamble, or by a first element of group 2 or 8 where it has none."""
    if data[128:132] == b"DICM":
        return True
    if data[:2] not in (b"\x02\0", b"\x08\0") or data[3:4] != b"\0":
        return False
    return data[4:6] in FIRST_TYPES or int.from_bytes(data[4:8], "little") < 256  # its type, or its length instead


def to_png(data: bytes, max_pixels: int) -> bytes:
    """The image as an 8-bit PNG, gray or RGB; of several frames, the middle one.

    Gray values are rescaled, then shown through the file's first window, or over their full range where it has none;
    MONOCHROME1, where small values are bright, is inverted.

    Raises DicomError where the file is damaged, compressed in a way that cannot be read, or of more than `max_pixels`.
    """
    # pydicom quotes values of tags in its warnings, its log and its exceptions.
    logging.getLogger("pydicom").disabled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = _read_header(data)
            size, compression = int(header.Rows) * int(header.Columns), _compression(header)
        except OURS:
            raise
        except Exception:  # damaged bytes make pydicom raise nearly anything
            raise DicomError("a damaged file") from None
        if size > max_pixels:
            raise DicomError(f"{size:,} pixels, more than {max_pixels:,}")
        try:
            pixels, shown = _decode(header)
        except OURS:
            raise
        except Exception:
            raise DicomError(f"pixels that cannot be decoded{compression}") from None
        levels = _full_range(pixels, 0, np.iinfo(pixels.dtype).max) if pixels.ndim == 3 else _show(pixels, shown)
    sink = io.BytesIO()
    PIL.Image.fromarray(levels).save(sink, "PNG")
    return sink.getvalue()


def _read_header(data: bytes) -> Dataset:
    """The tags of a file; of one without the part that says so, the transfer syntax that it was read by."""
    header = pydicom.dcmread(io.BytesIO(data), specific_tags=TAGS, force=True)
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, _ = header.original_encoding
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return header


def _compression(header: Dataset) -> str:
    """By what the pixels are compressed, as a clause of a message, in the standard's own words; "" where they are not.

    An identifier that the standard does not have is not quoted.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in UID_dictionary and not syntax.is_compressed:
        return ""
    return f", compressed by {UID_dictionary[syntax][0] if syntax in UID_dictionary else 'an unknown transfer syntax'}"


def _decode(header: Dataset) -> tuple[np.ndarray, Shown]:
    """The middle frame, (rows, columns) in its own unit or (rows, columns, 3), and how it is meant to be seen."""
    frame = int(header.get("NumberOfFrames") or 1) // 2
    pixels = pixel_array(header, index=frame)
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:
        return pixels, Shown(None, "LINEAR", inverted=False)
    _lift(header, frame)
    window = None
    if "WindowWidth" in header:
        window = (_first_number(header.WindowCenter), _first_number(header.WindowWidth))
    values = np.asarray(apply_modality_lut(pixels, header), np.float64)
    return values, Shown(window, str(header.get("VOILUTFunction") or "LINEAR"), photometric == "MONOCHROME1")


def _lift(header: Dataset, frame: int) -> None:
    """Set at the top what the groups of the frame, or else those of all frames, say."""
    shared, single = header.get("SharedFunctionalGroupsSequence"), header.get("PerFrameFunctionalGroupsSequence")
    for item in [*(shared or [])[:1], *(single or [])[frame : frame + 1]]:
        for sequence, names in GROUPS.items():
            for group in (item.get(sequence) or [])[:1]:
                for name in names:
                    if name in group:
                        header[name] = group[name]


def _show(values: np.ndarray, shown: Shown) -> np.ndarray:
    """Gray values `(rows, columns)` as they are meant to be seen, uint8."""
    gray = _through(values, *shown.window, shown.function) if shown.window else _full_range(values)
    return 255 - gray if shown.inverted else gray


def _through(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Values through a window, by the formulas of DICOM part 3, C.11.2.1."""
    if function == "SIGMOID":
        return np.rint(255 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.uint8)
    if function == "LINEAR":  # LINEAR_EXACT takes the values as they stand
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return _full_range(values, centre - width / 2, centre + width / 2)


def _first_number(value: Any) -> float:
    return float(value[0] if isinstance(value, list | pydicom.multival.MultiValue) else value)


def _full_range(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values as 0 to 255, with `low` (the least) at 0 and `high` (the largest) at 255; all 0 where these are one."""
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    scaled = (values - low) / ((high - low) or 1) * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
