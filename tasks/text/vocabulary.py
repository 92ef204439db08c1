"""Words for modality, organ and topic that may leave a hospital; all other words become `other`.

A hospital's table may contain anything in these columns, even a name.
"""

OTHER = "other"
MODALITIES = frozenset(
    (
        "angiography", "bone scan", "colposcopy", "ct", "dermoscopy", "digital photography", "endoscopy", "fluoroscopy",
        "fundus photography", "infrared reflectance imaging", "mammography", "microscopy", "microscopy images", "mri",
        "nuclear medicine", "oct", "pet", "photography", "scintigraphy", "spect", "ultrasound", "x-ray",
    )
)  # fmt: skip
"""In the names of `ingest`."""
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
"""Those of the published datasets, and other common ones."""
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
"""In the spelling of the datasets."""


def known(word: str | None, vocabulary: frozenset[str]) -> str | None:
    """The word if it is in the vocabulary, else `other`; None stays None."""
    return word if word is None or word in vocabulary else OTHER
