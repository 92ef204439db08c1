"""The prompt of the language model; no other file contains any part of it.

A small model follows examples better than rules: asked for JSON by rules, SmolLM2-135M repeated one entry until it was
cut off. A topic before each line keeps it from asking the same again.
"""

SYSTEM = (
    "You write short questions and answers about radiological images from their captions, one a line. "
    "You use nothing but the caption: you leave out what it does not say."
)
EXAMPLES = (
    (
        "Axial contrast-enhanced CT shows a small mass in the left lower lobe. There is no pleural effusion.",
        """\
modality: What imaging modality was used? CT
plane: In which plane was the image taken? axial
finding: What is seen in the left lower lobe? mass
side: Which side is the mass on? left
size: What is the size of the mass? small
denied: Is there a pleural effusion? no""",
    ),
    (
        "Large joint effusion of the right knee. No evidence of fracture. Diagnosis: Hemarthrosis.",
        """\
finding: What abnormality does the knee show? joint effusion
side: On which side is the joint effusion? right
size: How large is the joint effusion? large
denied: Does the image show a fracture? no""",
    ),
    (
        "Sagittal MRI demonstrates edema. A cyst is noted in the cerebellum. Diagnosis: Hemangioblastoma.",
        """\
modality: How was this image taken? MRI
plane: What is the imaging plane? sagittal
finding: Which abnormality is visible in the cerebellum? cyst
location: Where is the cyst located? cerebellum
present: Is edema visible? yes""",
    ),
)
"""Captions, none of them published, and the lines that answer them."""


def messages(caption: str) -> list[dict[str, str]]:
    """The chat messages that ask for the pairs of one caption."""
    turns = [{"role": "system", "content": SYSTEM}]
    for example, lines in EXAMPLES:
        turns += [{"role": "user", "content": _asked(example)}, {"role": "assistant", "content": lines}]
    return [*turns, {"role": "user", "content": _asked(caption)}]


def _asked(caption: str) -> str:
    return f"Caption: {' '.join(caption.split())}"
