"""Words in captions and metadata for modality, plane, side, size and place."""

import re

MODALITIES = {
    "CT": r"(?-i:CT|CTA|CECT|NCCT|HRCT)|ct|computed tomograph\w+|computerized tomograph\w+",
    "MRI": r"(?-i:MR|MRA|MRV|MRCP|FLAIR|STIR|T1WI?|T2WI?|T1|T2|DWI|ADC)|mri|mris|magnetic resonance"
    r"|t[12][- ]weighted|diffusion[- ]weighted",
    "X-ray": r"x[- ]?rays?|radiographs?|plain films?|chest films?|radiography",
    "ultrasound": r"(?-i:US)|ultrasound|ultrasonograph\w+|sonogra\w+|echocardiogra\w+|doppler",
    "PET": r"(?-i:PET)|positron emission tomography",
    "mammography": r"mammogra\w+",
    "angiography": r"angiogra\w+",
    "fluoroscopy": r"fluoroscop\w+",
    "scintigraphy": r"scintigra\w+|bone scan",
}
EXCLUSIVE_MODALITIES = ("CT", "MRI", "X-ray", "ultrasound")
"""An image has only one of these modalities; the others overlap with them."""
PLANES = {"axial": r"axial|transverse|transaxial", "coronal": r"coronal", "sagittal": r"sagital|sagittal"}
SIDES = {"left": r"left(?:[- ]sided)?", "right": r"right(?:[- ]sided)?", "bilateral": r"bilateral(?:ly)?|both sides"}
SIZES = {"small": r"small", "large": r"large"}
UNSTATED = frozenset(
    ("", "n/a", "na", "none", "unknown", "not stated", "generalized", "left blank", "pathology", "other")
)
"""Values of metadata that mean not stated."""
MODIFIER = (
    "left|right|upper|lower|middle|mid|anterior|posterior|superior|inferior|medial|lateral|proximal|distal|central|"
    "frontal|temporal|parietal|occipital|parietooccipital|frontoparietal|temporoparietal|basal|apical|cervical|thoracic|"
    "lumbar|sacral|maxillary|sphenoid|ethmoid|renal|hepatic|adrenal|lung|cerebellar|cerebellopontine|popliteal|inguinal|"
    "suprasellar|paraspinal|retroperitoneal|pelvic|femoral|tibial|third|fourth|internal|external|common|carotid|pulmonary|"
    "basilar|vertebral|subclavian|iliac|main|bilateral|medullary|spinal|cranial|middle|subcutaneous|white|gray|grey|deep|"
    "cavernous|optic|parotid|thyroid|pituitary|caudate|pancreatic|uterine|ovarian|lymph|soft"
)
PLACE = (
    "lungs?|lobes?|kidneys?|liver|spleen|pancreas|brain|brainstem|cerebellum|thalamus|hemispheres?|ventricles?|gland|glands|"
    "orbit|orbits|globe|globes|sinus|sinuses|neck|chest|thorax|abdomen|pelvis|spine|cord|canal|femur|tibia|fibula|humerus|"
    "radius|ulna|patella|clavicle|scapula|sternum|ribs?|hip|hips|knee|shoulder|elbow|wrist|hand|foot|ankle|skull|mandible|"
    "maxilla|fossa|fossae|angle|cistern|insula|ganglia|pons|medulla|midbrain|mediastinum|hilum|apex|apices|base|bases|"
    "aorta|artery|arteries|vein|veins|bladder|gallbladder|uterus|ovary|ovaries|prostate|testis|breast|stomach|duodenum|"
    "colon|cecum|rectum|esophagus|appendix|bowel|mesentery|retroperitoneum|muscle|muscles|condyle|plateau|head|face|"
    "nerve|nerves|matter|callosum|sella|nasopharynx|larynx|trachea|bronchus|heart|atrium|ventricle|pericardium|"
    "peritoneum|sac|quadrant|region|area|space|body|nodes?|tissues?|pole|horn|skin|scalp|vertebra|sacrum"
)
_NEXT = r"[\s-]+"
PLACE_PHRASE = re.compile(
    rf"(?:(?:{MODIFIER}){_NEXT})*(?:(?:{PLACE})\b(?:\s+of\s+the\s+(?:(?:{MODIFIER}){_NEXT})*(?:{PLACE})\b)?"
    rf"|(?:upper|middle|lower)\s+(?:left|right)\b(?!\s+(?:{PLACE})\b)|(?:left|right)\b(?:\s+side\b)?|both\s+sides\b)",
    re.IGNORECASE,
)
"""A place in a caption: `left lower lobe`, `head of the pancreas`, `upper left`, `right`."""
ANATOMY = re.compile(rf"\b(?:{MODIFIER}|{PLACE})\b", re.IGNORECASE)


def _patterns(words: dict[str, str]) -> dict[str, re.Pattern[str]]:
    return {name: re.compile(rf"(?<![\w])(?:{form})(?![\w])", re.IGNORECASE) for name, form in words.items()}


DIMENSIONS = {
    "modality": _patterns(MODALITIES),
    "plane": _patterns(PLANES),
    "side": _patterns(SIDES),
    "size": _patterns(SIZES),
}
"""Pattern of each value, by dimension."""


def values(dimension: str, text: str) -> set[str]:
    """The values of a dimension that a text names, such as `{"CT"}`; angiography only where it is the only modality."""
    found = {value for value, pattern in DIMENSIONS[dimension].items() if pattern.search(text)}
    return found - {"angiography"} or found


def only(dimension: str, text: str | None) -> str | None:
    """The value that a text names; None where it names none or several."""
    found = values(dimension, text or "")
    return next(iter(found)) if len(found) == 1 else None


def exclusive(dimension: str) -> tuple[str, ...]:
    """The mutually exclusive values of a dimension: stating one denies the others."""
    closed = {"modality": EXCLUSIVE_MODALITIES, "plane": tuple(PLANES), "side": ("left", "right"), "size": tuple(SIZES)}
    return closed[dimension]


def is_stated(value: str | None) -> bool:
    """Whether a metadata value is stated."""
    return (value or "").strip().lower() not in UNSTATED
