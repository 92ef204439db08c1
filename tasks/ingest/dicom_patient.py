"""The patient in a DICOM file, as a digest: the id itself goes no further."""

import io
import logging
import warnings

import pydicom

from tasks.cases.patients import patient_digest
from tasks.errors import OURS
from tasks.ingest.dicom import is_dicom


def patient_of(data: bytes) -> str | None:
    """The digest of a DICOM file's PatientID; None for other files, and where no patient is stated."""
    if not is_dicom(data):
        return None
    logging.getLogger("pydicom").disabled = True  # pydicom quotes values of tags
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=["PatientID"], force=True)
            written = str(header.get("PatientID") or "").strip(" \0")
        except OURS:
            raise
        except Exception:  # damaged bytes make pydicom raise nearly anything; reading the pixels reports the damage
            return None
    return patient_digest(written) if written else None
