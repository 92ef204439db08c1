"""The words that may leave a hospital of what an image shows and a question is about; all others are `other`.

A hospital's own table may write anything into these columns, a name among it.
"""

OTHER = "other"
MODALITIES = frozenset(
    (
        "angiography", "bone scan", "colposcopy", "ct", "dermoscopy", "digital photography", "endoscopy", "fluoroscopy",
        "fundus photography", "infrared reflectance imaging", "mammography", "microscopy", "microscopy images", "mri",
        "nuclear medicine", "oct", "pet", "photography", "scintigraphy", "spect", "ultrasound", "x-ray",
    )
)  # fmt: skip
"""As `ingest` names them."""
ORGANS = frozenset(
    (
        "abdomen", "arm", "bladder", "bone", "brain", "brain and neuro", "brain face", "brain tissue", "breast",
        "breast and mammography", "cardiovascular", "chest", "chest heart", "chest lung", "chest mediastinal",
        "chest, pulmonary", "colon", "dental, oral, or tooth", "elbow", "endocrine", "esophagus", "eye",
        "eye and orbit", "foot", "gallbladder", "gastrointestinal", "generalized", "genitourinary", "hand", "head",
        "head and neck", "heart", "hematopoietic", "hip", "kidney", "knee", "leg", "liver", "lung", "lungs",
        "musculoskeletal", "neck", "nerve, central", "nerve, peripheral", "ophthalmology", "ovary", "pancreas",
        "pelvic cavity", "pelvis", "prostate", "reproductive and urinary system", "retina", "shoulder", "skin",
        "spine", "spine and muscles", "spleen", "stomach", "thorax", "thyroid", "urinary bladder", "uterus",
        "vascular", "whole body",
    )
)  # fmt: skip
"""Of the published datasets, and common ones beside."""
TOPICS = frozenset(
    (
        # VQA-RAD
        "ABN", "ATTRIB", "COLOR", "COUNT", "MODALITY", "ORGAN", "OTHER", "Other", "PLANE", "POS", "PRES", "SIZE",
        # SLAKE
        "Abnormality", "Color", "KG", "Modality", "Organ", "Plane", "Position", "Quantity", "Shape", "Size",
        # OmniMedVQA
        "Anatomy Identification", "Disease Diagnosis", "Lesion Grading", "Modality Recognition",
        "Other Biological Attributes",
        # phantom, and questions made of captions
        "age", "description", "finding", "location", "modality", "normal", "organ", "other", "plane", "position",
        "presence", "sex", "side", "size",
    )
)  # fmt: skip
"""As the datasets write them."""


def known(word: str | None, vocabulary: frozenset[str]) -> str | None:
    """The word where the vocabulary has it, else `other`; None stays None."""
    return word if word is None or word in vocabulary else OTHER
