"""How a DICOM file's pixels are meant to be seen: converts stored values to 8-bit gray or RGB.

Follows DICOM part 3: the modality transformation, then the first VOI table or else the first window, then the inversion
for MONOCHROME1. Without a table or window, values are shown over their full range. Padding is excluded from that range
and shown black.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

Levels = NDArray[np.uint8]

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Colour spaces that pydicom and its decoders return as RGB."""
PALETTE = "PALETTE COLOR"
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def levels_of(stored: NDArray[Any], header: Dataset) -> Levels:
    """Convert decoded pixels, gray `(rows, columns)` or colour `(rows, columns, 3)`, to the levels to be seen.

    Empty elements of the header count as absent. Raises what pydicom raises for damaged tables.
    """
    if header.PhotometricInterpretation == PALETTE:
        return _by_palette(stored, header)
    if stored.ndim == 3:
        return _to_bytes(stored, 2 ** int(header.BitsStored) - 1)
    valid = np.isfinite(stored) & ~_padding(stored, header)
    gray = _by_table_or_window(_in_units(stored, header), valid, header)
    if header.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    return np.where(valid, gray, np.uint8(0))


def _by_palette(stored: NDArray[Any], header: Dataset) -> Levels:
    entries, first, _ = header.RedPaletteColorLookupTableDescriptor
    table = apply_color_lut(np.arange(first, first + (entries or 2**16)), header)
    # Some tables of 16 bits hold entries of 8 bits, whatever they state.
    top = 255 if table.max() < 256 else 65535
    return _to_bytes(apply_color_lut(stored, header)[..., :3], top)


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    """Mask of the padding `(rows, columns)`: values that only make the image rectangular."""
    value, limit = _number(header, "PixelPaddingValue"), _number(header, "PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, bool)
    ends = [_as_stored(each, stored.dtype) for each in (value, value if limit is None else limit)]
    return (stored >= min(ends)) & (stored <= max(ends))


def _as_stored(value: float, dtype: np.dtype[Any]) -> float:
    """A padding value in the pixels' type: some writers store a signed value as the unsigned one with the same bits."""
    if dtype.kind == "f":
        return value
    return int(np.array(int(value) % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}").astype(dtype))


def _in_units(stored: NDArray[Any], header: Dataset) -> NDArray[np.float64]:
    """Stored values after the modality transformation, in their unit: Hounsfield units for CT."""
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    for name in ("RescaleSlope", "RescaleIntercept"):
        if name in header:
            del header[name]
    if slope is not None or intercept is not None:
        header.RescaleSlope, header.RescaleIntercept = slope or 1, intercept or 0  # a slope of 0 would erase the image
    wide = stored if stored.dtype.kind == "f" else stored.astype(np.int64)  # indices for tables of any length
    return np.asarray(apply_modality_lut(wide, header), np.float64)


def _by_table_or_window(values: NDArray[np.float64], valid: NDArray[np.bool_], header: Dataset) -> Levels:
    """Gray values as 0 to 255; `valid` marks the values that are not padding."""
    table = next((item for item in header.get("VOILUTSequence") or [] if item.get("LUTData")), None)
    if table is not None:
        return _by_table(values, table, header)
    centre, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if centre is not None and width is not None and width > 0:
        return _by_window(values, centre, width, str(header.get("VOILUTFunction") or FUNCTIONS[0]).upper())
    counted = values[valid]
    low, high = (counted.min(), counted.max()) if counted.size else (0.0, 0.0)
    return _to_bytes(values - low, high - low)


def _by_table(values: NDArray[np.float64], table: Dataset, header: Dataset) -> Levels:
    entries, first, bits = table.LUTDescriptor
    if bits == 8 and isinstance(table.LUTData, bytes) and len(table.LUTData) < 2 * entries:  # a byte each, not a word
        table.add_new("LUTData", "US", list(table.LUTData[:entries]))
    # pydicom indexes a table in the type of its entries, and 8 bits reach no further than 255.
    table.LUTDescriptor = [entries, first, 16]
    header.VOILUTSequence = [table]
    places = np.clip(np.rint(np.nan_to_num(values)), first, first + (entries or 2**16) - 1).astype(np.int64)
    return _to_bytes(apply_voi(places, header), 2**bits - 1)


def _by_window(values: NDArray[np.float64], centre: float, width: float, function: str) -> Levels:
    if function not in FUNCTIONS or (function == "LINEAR" and width < 1):
        # LINEAR is defined for widths of at least 1. Narrower windows belong to fractional values.
        function = "LINEAR_EXACT" if width < 1 else "LINEAR"
    window = Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = GRAY[1], 8, 0  # to 0 to 255
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre, width, function
    return _to_bytes(apply_windowing(values, window), 255)


def _to_bytes(values: NDArray[Any], top: float) -> Levels:
    """Scale values from 0 to `top` to 0 to 255; all 0 where `top` is 0."""
    if values.dtype == np.uint8 and top == 255:
        return values
    return np.rint(np.clip(np.nan_to_num(values / (top or 1) * 255), 0, 255)).astype(np.uint8)


def _number(header: Dataset, name: str) -> float | None:
    """The first number of an element; None where it is absent or empty."""
    value = header.get(name)
    first = next(iter(value), None) if isinstance(value, list | MultiValue) else value
    if first is None or first == "":
        return None
    return float(first) if math.isfinite(float(first)) else None
