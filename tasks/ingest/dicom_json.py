"""DICOM JSON (the standard's part 18, annex F): an image with its pixels inline becomes a DICOM file.

Only the tags that say how to show the pixels are read, as of files. Pixels at an address are refused: nothing is
fetched.
"""

import io
import json
import logging
import re
import warnings
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, UID_dictionary

from tasks.errors import OURS
from tasks.ingest.dicom import PIXELS, TAGS, DicomError

BEGINNING = re.compile(rb'\s*\[?\s*\{\s*"[0-9A-Fa-f]{8}"\s*:')
SYNTAXES = ("00020010", "00083002")
"""Tags that name the transfer syntax of the inline pixels: that of the file, and the one that a server offers."""
REMEDY = "send one image with InlineBinary pixels, or the DICOM file"


def is_dicom_json(data: bytes) -> bool:
    """Whether bytes begin as a DICOM JSON model does."""
    return BEGINNING.match(data) is not None


def to_file(data: bytes) -> bytes:
    """The DICOM file of one image in DICOM JSON, with the tags that show its pixels alone.

    Pixels are little-endian and uncompressed unless the JSON names a transfer syntax.

    Raises DicomError where it is no valid JSON, has several images or none, or names pixels by an address. The text
    quotes nothing of it.
    """
    model = _one(data)
    keys = [f"{tag_for_keyword(name):08X}" for name in TAGS]
    pixels = [model[key] for key in keys[: len(PIXELS)] if key in model]
    if not pixels:
        raise DicomError("no pixels", REMEDY)
    if not any(isinstance(each, dict) and "InlineBinary" in each for each in pixels):
        raise DicomError("pixels that are not inline", REMEDY)
    logging.getLogger("pydicom").disabled = True  # it quotes values of tags
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shown = Dataset.from_json({key: model[key] for key in keys if key in model})
            return _file(shown, _syntax(model))
        except (DicomError, *OURS):
            raise
        except Exception:  # what a tag holds may be anything
            raise DicomError("tags that cannot be read", REMEDY) from None


def _one(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        raise DicomError("broken JSON", REMEDY) from None
    instances = found if isinstance(found, list) else [found]
    if len(instances) != 1 or not isinstance(instances[0], dict):
        raise DicomError(f"{len(instances)} images", REMEDY)
    return {key.upper(): value for key, value in instances[0].items()}


def _syntax(model: dict[str, Any]) -> UID:
    """The transfer syntax. Raises DicomError for one that the standard has not."""
    for key in SYNTAXES:
        values = model.get(key, {}).get("Value")
        if values:
            if values[0] not in UID_dictionary:
                raise DicomError("an unknown transfer syntax", REMEDY)
            return UID(values[0])
    return ExplicitVRLittleEndian


def _file(shown: Dataset, syntax: UID) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    sink = io.BytesIO()
    file = FileDataset("", shown, file_meta=meta, preamble=b"\0" * 128)
    if syntax.is_compressed and "PixelData" in file:
        file["PixelData"].is_undefined_length = True
    file.save_as(sink, enforce_file_format=False, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return sink.getvalue()
