"""One name for each imaging modality, from the words of any dataset or from DICOM codes."""

import re
from itertools import chain

CODES = {
    "ct": "ct",
    "mri": "mr ma",
    "x-ray": "cr dx dr rg xr io px",
    "ultrasound": "us ivus bdus ec",
    "mammography": "mg",
    "angiography": "xa ds",
    "fluoroscopy": "rf cf",
    "pet": "pt",
    "nuclear medicine": "nm st",
    "oct": "oct opt ivoct",
    "endoscopy": "es",
    "microscopy": "sm gm",
    "fundus photography": "op",
    "dermoscopy": "dms",
    "photography": "xc",
    "other": "ot",
}
"""Defined terms of DICOM's Modality (0008,0060), including retired ones, and other codes that hospitals use."""
NAMES = {
    r"ct\b|cat scan|computed tomography|x-ray computed": "ct",
    r"mr\b|mri\b|magnetic resonance": "mri",
    r"x-?\s?ray\b(?! angiogra)|plain (x-?\s?ray|film)|((computed|digital|plain) )?radiogra": "x-ray",
    r"ultraso|sonogra|echocardiogra": "ultrasound",
    r"mammogra": "mammography",
    r"(x-?\s?ray )?angiogra": "angiography",
    r"fluorosco": "fluoroscopy",
    r"pet\b(?!\W*ct)|positron emission tomography(?!\W*(ct|computed))": "pet",
    r"nuclear medicine|scintigra|spect\b(?!\W*ct)": "nuclear medicine",
    r"oct\b|optical coherence": "oct",
    r"microscop": "microscopy",
}
"""Patterns for the beginning of a published name."""


def modality_of(text: str | None) -> str | None:
    """The modality in lower case, by its common name if it has one; None for an empty text."""
    lower = " ".join((text or "").lower().split()).rstrip(". ")
    by_code = (name for name, codes in CODES.items() if lower in codes.split())
    by_name = (name for pattern, name in NAMES.items() if re.match(pattern, lower))
    return next(chain(by_code, by_name), lower) or None
