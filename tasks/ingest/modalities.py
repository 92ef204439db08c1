"""One name for each imaging modality, whichever dataset names it."""

import re

NAMES = {
    r"ct\b|computed tomography|x-ray computed": "ct",
    r"mr\b|mri\b|magnetic resonance": "mri",
    r"x-?\s?ray\b|plain x-ray|radiograph": "x-ray",
    r"ultraso": "ultrasound",
    r"oct\b|optical coherence": "oct",
}
"""By how a published name begins."""


def modality_of(text: str | None) -> str | None:
    """The modality in lower case, under its common name where it has one."""
    if text is None:
        return None
    lower = text.lower().rstrip(". ")
    return next((name for pattern, name in NAMES.items() if re.match(pattern, lower)), lower)
