"""A modality has one name, however a table, a dataset or a DICOM header writes it."""

import pytest

from tasks.ingest.modalities import CODES, NAMES, modality_of

WRITTEN = {
    "ct": (
        "CT",
        "ct ",
        "CT scan.",
        "Computed Tomography",
        "CT(Computed Tomography)",
        "X-Ray Computed Tomography",
        "CT.",
    ),
    "mri": ("MR", "MRI", "MR imaging", "Magnetic Resonance Imaging", "MR Angiography"),
    "x-ray": (
        *("CR", "DX", "RG", "IO", "PX", "DR", "X-Ray", "X ray", "xray", "Plain X-Ray", "plain film"),
        *("Radiograph", "Radiography", "Computed Radiography", "Digital  radiography"),
    ),
    "ultrasound": ("US", "us", "IVUS", "Ultrasound", "ultrasonography", "Sonography", "Echocardiogram"),
    "mammography": ("MG", "Mammography", "Mammogram"),
    "angiography": ("XA", "Angiography", "angiogram", "X-Ray Angiography"),
    "fluoroscopy": ("RF", "Fluoroscopy"),
    "pet": ("PT", "PET", "Positron emission tomography"),
    "nuclear medicine": ("NM", "Nuclear Medicine", "Scintigraphy", "SPECT"),
    "oct": ("OCT", "OPT", "Optical Coherence Tomography"),
    "endoscopy": ("ES", "Endoscopy"),
    "microscopy": ("SM", "GM", "Microscopy Images"),
    "fundus photography": ("OP", "Fundus Photography"),
    "dermoscopy": ("DMS", "Dermoscopy"),
    "photography": ("XC",),
    "other": ("OT",),
    "pet/ct": ("PET/CT",),  # two at once
    "usual view": ("Usual view",),  # begins as a code does
    "optical": ("Optical",),
}


@pytest.mark.parametrize(("name", "written"), [(name, each) for name, all_of in WRITTEN.items() for each in all_of])
def test_each_way_of_writing_has_its_name(name: str, written: str) -> None:
    assert modality_of(written) == name


def test_names_stand_for_themselves_and_codes_are_told_once() -> None:
    for name in {*CODES, *NAMES.values()}:
        assert modality_of(name) == name
    codes = " ".join(CODES.values()).split()
    assert len(codes) == len(set(codes))


def test_nothing_is_no_modality() -> None:
    assert [modality_of(text) for text in (None, "", " ", ".")] == [None] * 4
