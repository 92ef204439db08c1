"""DICOM: reads the pixels of a file as an 8-bit PNG, and nothing else.

Only the tags that say how to show the pixels are parsed. Tags about the patient are never read, so they cannot get into
an artifact, message or log.
"""

import io
import logging
import warnings

import PIL.Image
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary

from tasks.errors import OURS
from tasks.ingest.dicom_levels import COLOUR, GRAY, PALETTE, levels_of

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TAGS = [
    *(*PIXELS, "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "SOPClassUID"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleIntercept", "RescaleSlope"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{form}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for form, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
]
GROUPS = {
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "FrameVOILUTSequence": ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
}
"""Where enhanced multi-frame files keep tags that other files have at the top level."""


FIRST_TYPES = (b"UL", b"OB", b"UI", b"SH", b"CS", b"DA", b"TM", b"DT", b"LO", b"PN")
"""Types of the elements with which a file without a preamble can begin."""


class DicomError(Exception):
    """Why a file's pixels cannot be read; the text quotes nothing from the file."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


ANEW = "export the image anew (uncompressed, as `gdcmconv --raw` does, or as a PNG)"


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: by the preamble, or without one by a first element of group 2 or 8."""
    if data[128:132] == b"DICM":
        return True
    if data[:2] not in (b"\x02\0", b"\x08\0") or data[3:4] != b"\0":
        return False
    return data[4:6] in FIRST_TYPES or int.from_bytes(data[4:8], "little") < 256  # its type, or its length instead


def to_png(data: bytes, max_pixels: int) -> bytes:
    """The image as an 8-bit PNG, gray or RGB; the middle frame of a multi-frame file.

    Raises DicomError where the file is damaged, holds no image, has more than `max_pixels`, or has a compression or
    colour space that cannot be read.
    """
    # pydicom quotes values of tags in warnings, log and exceptions.
    logging.getLogger("pydicom").disabled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = _read_header(data)
            _refuse(header, max_pixels)
            compression = _compression(header)
        except (DicomError, *OURS):
            raise
        except Exception:  # damaged bytes make pydicom raise nearly anything
            raise DicomError("a damaged file", ANEW) from None
        try:
            frame = _middle(header)
            _lift(header, frame)
            levels = levels_of(pixel_array(header, index=frame), header)
        except OURS:
            raise
        except Exception:
            raise DicomError(f"pixels that cannot be decoded{compression}", ANEW) from None
    sink = io.BytesIO()
    PIL.Image.fromarray(levels).save(sink, "PNG")
    return sink.getvalue()


def _refuse(header: Dataset, max_pixels: int) -> None:
    """Raise DicomError where the header shows that the file holds no readable image."""
    if not any(name in header for name in PIXELS):
        raise DicomError(f"a DICOM file without an image{_kind(header)}", "name the file of an image")
    size = int(header.Rows) * int(header.Columns)
    if size > max_pixels:
        raise DicomError(f"{size:,} pixels, more than {max_pixels:,}", ANEW)
    if header.PhotometricInterpretation not in (*GRAY, *COLOUR, PALETTE):
        raise DicomError("pixels in a colour space that cannot be read", ANEW)


def _kind(header: Dataset) -> str:
    """The kind of a file in brackets, in the standard's words; "" where it is not stated or not in the standard."""
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return f" ({UID_dictionary[kind][0]})" if kind in UID_dictionary else ""


def _read_header(data: bytes) -> Dataset:
    """Read the tags of a file; where it does not state its transfer syntax, the one used for reading is set."""
    header = pydicom.dcmread(io.BytesIO(data), specific_tags=TAGS, force=True)
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, _ = header.original_encoding
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return header


def _compression(header: Dataset) -> str:
    """The compression of the pixels as a clause of a message, in the standard's words; "" where there is none.

    An identifier that is not in the standard is not quoted.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in UID_dictionary and not syntax.is_compressed:
        return ""
    return f", compressed by {UID_dictionary[syntax][0] if syntax in UID_dictionary else 'an unknown transfer syntax'}"


def _middle(header: Dataset) -> int:
    """The middle frame, counted from 0."""
    return int(header.get("NumberOfFrames") or 1) // 2


def _lift(header: Dataset, frame: int) -> None:
    """Copy tags from the functional groups to the top level; the frame's groups override those shared by all frames."""
    shared, single = header.get("SharedFunctionalGroupsSequence"), header.get("PerFrameFunctionalGroupsSequence")
    for item in [*(shared or [])[:1], *(single or [])[frame : frame + 1]]:
        for sequence, names in GROUPS.items():
            for group in (item.get(sequence) or [])[:1]:
                for name in names:
                    if name in group:
                        header[name] = group[name]
