"""DICOM files for the tests of tasks/ingest, with a patient in them whom nobody may ever see again."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

CANARY = "Zwetschgenknoedel"


def dicom(pixels: np.ndarray, **tags: Any) -> bytes:
    """A DICOM file of (frames, rows, columns), (rows, columns) or (rows, columns, 3) whole numbers."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fed-rag"])  # the same bytes at every call
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.PatientName, file.PatientID, file.InstitutionName = f"{CANARY}^Anna", CANARY, CANARY
    file.private_block(0x0011, CANARY, create=True).add_new(1, "LO", CANARY)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        file.NumberOfFrames = len(pixels)
    file.Rows, file.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    file.BitsAllocated = file.BitsStored = 8 * pixels.dtype.itemsize
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    sink = io.BytesIO()
    file.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def dataset(**tags: Any) -> Dataset:
    """A DICOM sequence's item."""
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return item
