"""DICOM: the pixels of a file as an 8-bit PNG, and nothing else of it.

Only the tags that say how to show the pixels are parsed. Those about the patient are never read, so that they can
get into no artifact, message or log.
"""

import io
import logging
import warnings
from typing import Any

import numpy as np
import PIL.Image
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

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


class DicomError(Exception):
    """Why a file's pixels cannot be had: a text that quotes nothing of the file."""


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file, which its preamble says."""
    return data[128:132] == b"DICM"


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
            header = pydicom.dcmread(io.BytesIO(data), specific_tags=TAGS)
            size = int(header.Rows) * int(header.Columns)
        except Exception:
            raise DicomError("a damaged file") from None
        if size > max_pixels:
            raise DicomError(f"{size:,} pixels, more than {max_pixels:,}")
        try:
            shown = _shown(header)
        except Exception:
            raise DicomError("pixels that cannot be decoded") from None
    sink = io.BytesIO()
    PIL.Image.fromarray(shown).save(sink, "PNG")
    return sink.getvalue()


def _shown(header: Dataset) -> np.ndarray:
    """The middle frame as it is meant to be seen, (rows, columns) or (rows, columns, 3), uint8."""
    frame = int(header.get("NumberOfFrames") or 1) // 2
    pixels = pixel_array(header, index=frame)
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:
        return _full_range(pixels, 0, 2 ** (8 * pixels.dtype.itemsize) - 1)
    _lift(header, frame)
    values = np.asarray(apply_modality_lut(pixels, header), np.float64)
    gray = _windowed(values, header) if "WindowWidth" in header else _full_range(values, values.min(), values.max())
    return 255 - gray if photometric == "MONOCHROME1" else gray


def _lift(header: Dataset, frame: int) -> None:
    """Set at the top what the groups of the frame, or else those of all frames, say."""
    shared, single = header.get("SharedFunctionalGroupsSequence"), header.get("PerFrameFunctionalGroupsSequence")
    for item in [*(shared or [])[:1], *(single or [])[frame : frame + 1]]:
        for sequence, names in GROUPS.items():
            for group in (item.get(sequence) or [])[:1]:
                for name in names:
                    if name in group:
                        header[name] = group[name]


def _windowed(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Values through the first window, by the formulas of DICOM part 3, C.11.2.1."""
    centre, width = (float(_first(header[name].value)) for name in ("WindowCenter", "WindowWidth"))
    function = header.get("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        return np.rint(255 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.uint8)
    if function == "LINEAR":  # LINEAR_EXACT takes the values as they stand
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return _full_range(values, centre - width / 2, centre + width / 2)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | pydicom.multival.MultiValue) else value


def _full_range(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as 0 to 255, with `low` at 0 and `high` at 255; all 0 where there is but one value."""
    scaled = (values - low) / ((high - low) or 1) * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
