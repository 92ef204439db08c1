"""DICOM: the pixels of a file as an 8-bit PNG, and nothing else of it.

Only the tags that say how to show the pixels are parsed. Those about the patient are never read, so that they can
get into no artifact, message or log.
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
"""Where a multi-frame file of the enhanced kind keeps what others keep at the top."""


FIRST_TYPES = (b"UL", b"OB", b"UI", b"SH", b"CS", b"DA", b"TM", b"DT", b"LO", b"PN")
"""Of the elements that a file without a preamble can begin with."""


class DicomError(Exception):
    """Why a file's pixels cannot be had: a text that quotes nothing of the file."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


ANEW = "export the image anew (uncompressed, as `gdcmconv --raw` does, or as a PNG)"


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: by its preamble, or by a first element of group 2 or 8 where it has none."""
    if data[128:132] == b"DICM":
        return True
    if data[:2] not in (b"\x02\0", b"\x08\0") or data[3:4] != b"\0":
        return False
    return data[4:6] in FIRST_TYPES or int.from_bytes(data[4:8], "little") < 256  # its type, or its length instead


def to_png(data: bytes, max_pixels: int) -> bytes:
    """The image as an 8-bit PNG, gray or RGB; of several frames, the middle one.

    Raises DicomError where the file is damaged, holds no image, is compressed in a way or has colours that cannot be
    read, or has more than `max_pixels`.
    """
    # pydicom quotes values of tags in its warnings, its log and its exceptions.
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
    """Raise DicomError for what is no image that can be read, as far as the header tells."""
    if not any(name in header for name in PIXELS):
        raise DicomError(f"a DICOM file without an image{_kind(header)}", "name the file of an image")
    size = int(header.Rows) * int(header.Columns)
    if size > max_pixels:
        raise DicomError(f"{size:,} pixels, more than {max_pixels:,}", ANEW)
    if header.PhotometricInterpretation not in (*GRAY, *COLOUR, PALETTE):
        raise DicomError("pixels in a colour space that cannot be read", ANEW)


def _kind(header: Dataset) -> str:
    """What a file holds, in brackets, in the standard's own words; "" where it does not say or says it in others."""
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return f" ({UID_dictionary[kind][0]})" if kind in UID_dictionary else ""


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


def _middle(header: Dataset) -> int:
    """The frame that is taken, counted from 0."""
    return int(header.get("NumberOfFrames") or 1) // 2


def _lift(header: Dataset, frame: int) -> None:
    """Set at the top what the groups of the frame, or else those of all frames, say."""
    shared, single = header.get("SharedFunctionalGroupsSequence"), header.get("PerFrameFunctionalGroupsSequence")
    for item in [*(shared or [])[:1], *(single or [])[frame : frame + 1]]:
        for sequence, names in GROUPS.items():
            for group in (item.get(sequence) or [])[:1]:
                for name in names:
                    if name in group:
                        header[name] = group[name]
